package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// certificate serves a certificate from two files and reads them again when
// they change, so that a renewal needs no restart.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	stamp   [2]fileStamp
	checked time.Time
}

// fileStamp is what tells a changed file from the one that was read.
type fileStamp struct {
	modified time.Time
	size     int64
}

// certificateCheck is how often, at most, the files are looked at.
const certificateCheck = time.Second

// newCertificate reads the pair once, so that a bad one stops the start.
func newCertificate(certFile, keyFile string, log *slog.Logger) (*certificate, error) {
	c := &certificate{certFile: certFile, keyFile: keyFile, log: log}
	if err := c.reload(); err != nil {
		return nil, err
	}
	return c, nil
}

// config is the TLS configuration that serves c.
func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get, NextProtos: []string{"h2", "http/1.1"}}
}

// get returns the current pair. A pair that cannot be read, half written
// perhaps, is logged and the one before goes on serving.
func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) >= certificateCheck {
		c.checked = time.Now()
		if stamp, err := c.look(); err == nil && stamp != c.stamp {
			if err := c.reload(); err != nil {
				c.log.Error("certificate changed and cannot be used, serving the one before", "error", err)
			} else {
				c.log.Info("certificate read again", "file", c.certFile)
			}
		}
	}
	return c.current, nil
}

// look stamps both files.
func (c *certificate) look() (stamp [2]fileStamp, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return stamp, err
		}
		stamp[i] = fileStamp{info.ModTime(), info.Size()}
	}
	return stamp, nil
}

// reload reads the pair.
func (c *certificate) reload() error {
	stamp, err := c.look()
	if err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("reading the certificate: %w", err)
	}
	c.current, c.stamp = &pair, stamp
	return nil
}
