// Command cluster runs a temporary PostgreSQL cluster for tests that import
// nothing of kavach. It prints one line of JSON and then answers commands, one
// a line on standard input, with a line of JSON each: {"error": …} if it failed.
// The cluster ends when standard input does.
//
//	stop MODE            smart, fast or immediate
//	start
//	restart MODE
//	kill                 SIGKILL
//	database NAME        makes a database: {"dsn": …}
//	as ROLE NAME         the DSN of a database for another role: {"dsn": …}
//	exec NAME SQL        one statement as superuser in database NAME
//	set NAME VALUE       a setting of the running server
//	standby              starts a standby of it (one): {"dsn": …, "dir": …}
//	promote              makes that standby the primary
//
// After standby, "on standby COMMAND…" is a command for the standby.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/kavach-dev/kavach/store/pgtest"
)

// answer is what is printed, a line each.
type answer struct {
	Error    string `json:"error,omitempty"`
	DSN      string `json:"dsn,omitempty"`
	Dir      string `json:"dir,omitempty"`
	Bin      string `json:"bin,omitempty"`
	Address  string `json:"address,omitempty"`  // over TCP
	PassFile string `json:"passfile,omitempty"` // for TCP
}

// settings are repeated -set NAME=VALUE.
type settings map[string]string

func (s settings) String() string { return "" }

func (s settings) Set(text string) error {
	name, value, ok := strings.Cut(text, "=")
	if !ok {
		return errors.New("want NAME=VALUE")
	}
	s[name] = value
	return nil
}

func main() {
	cfg := pgtest.Config{Settings: map[string]string{}}
	flag.BoolVar(&cfg.Durable, "durable", false, "leave fsync on")
	flag.BoolVar(&cfg.TCP, "tcp", false, "listen on loopback also")
	flag.BoolVar(&cfg.TLS, "tls", false, "encrypt, over TCP")
	flag.StringVar(&cfg.Bin, "bin", "", "directory of the binaries")
	flag.StringVar(&cfg.Dir, "dir", "", "where to make the cluster")
	flag.Var(settings(cfg.Settings), "set", "NAME=VALUE for postgresql.conf")
	flag.Parse()
	if err := serve(cfg); err != nil {
		say(answer{Error: err.Error()})
		os.Exit(1)
	}
}

// serve runs the cluster until standard input ends.
func serve(cfg pgtest.Config) error {
	c, err := pgtest.New(cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	say(describe(c))
	var standby *pgtest.Cluster
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		on, line := c, lines.Text()
		if rest, ok := strings.CutPrefix(line, "on standby "); ok {
			on, line = standby, rest
		}
		a := answer{}
		switch {
		case on == nil:
			err = errors.New("there is no standby")
		case line == "standby" && standby == nil:
			if standby, err = c.NewStandby(); err == nil {
				defer standby.Close()
				a = describe(standby)
			}
		case line == "promote" && standby != nil:
			err = standby.Promote()
		default:
			a, err = obey(on, line)
		}
		if err != nil {
			a = answer{Error: err.Error()}
		}
		say(a)
	}
	return lines.Err()
}

// obey does one command.
func obey(c *pgtest.Cluster, line string) (answer, error) {
	word, rest, _ := strings.Cut(line, " ")
	first, second, _ := strings.Cut(rest, " ")
	switch word {
	case "stop":
		return answer{}, c.Stop(pgtest.Mode(first))
	case "start":
		return answer{}, c.Start()
	case "restart":
		return answer{}, c.Restart(pgtest.Mode(first))
	case "kill":
		return answer{}, c.Kill()
	case "database":
		return answer{DSN: c.DSN(first)}, c.Create(first)
	case "as":
		return answer{DSN: c.As(first, second)}, nil
	case "exec":
		return answer{}, c.Exec(first, second)
	case "set":
		return answer{}, c.Set(first, second)
	}
	return answer{}, fmt.Errorf("no such command %q", word)
}

func describe(c *pgtest.Cluster) answer {
	return answer{DSN: c.DSN("postgres"), Dir: c.Dir(), Bin: c.Bin(), Address: c.Address(), PassFile: c.PassFile()}
}

// say writes one line of JSON.
func say(a answer) {
	if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
		os.Exit(1) // whom we served is gone
	}
}
