package main

import (
	"database/sql"
	"fmt"
	"net"
)

// listenLoopback takes any free port.
func listenLoopback() (net.Listener, error) { return net.Listen("tcp", "127.0.0.1:0") }

// tamper changes a SQLite database as somebody with the file could. The driver
// is linked by package store.
func tamper(file string, statements []string) error {
	db, err := sql.Open("sqlite", file)
	if err != nil {
		return err
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return nil
}
