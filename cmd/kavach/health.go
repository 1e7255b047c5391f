package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// healthCmd asks the operations listener: the container image's health check.
type healthCmd struct {
	Ops string `default:"127.0.0.1:8421" placeholder:"ADDR" help:"Address of the operations listener (${default})."`
	jsonFlag
}

func (c *healthCmd) Run(w *world) error {
	if _, _, err := net.SplitHostPort(c.Ops); err != nil {
		return usagef("write it like 127.0.0.1:8421", "--ops %q is not HOST:PORT", c.Ops)
	}
	client := &http.Client{Timeout: 3 * time.Second}
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http://"+c.Ops+"/readyz", nil)
	if err != nil {
		return usagef("write it like 127.0.0.1:8421", "--ops %q is not an address", c.Ops)
	}
	resp, err := client.Do(req)
	if err != nil {
		return withHint(fmt.Errorf("no kavach answers at %s", c.Ops), "is `kavach serve` running there? its --ops names the address")
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("reading the answer of %s: %w", c.Ops, err)
	}
	var answer readiness
	if err := json.Unmarshal(body, &answer); err != nil {
		return withHint(fmt.Errorf("%s is not the operations listener of a kavach (status %d)", c.Ops, resp.StatusCode),
			"its address is what `kavach serve` was given as --ops")
	}
	if c.JSON {
		if err := w.printJSON(answer); err != nil {
			return err
		}
		if !answer.Ready {
			return &silentError{errors.New("not ready")}
		}
		return nil
	}
	if !answer.Ready {
		var broken []string
		for name, state := range answer.Checks {
			if state != "ok" {
				broken = append(broken, name+": "+state)
			}
		}
		slices.Sort(broken)
		return fmt.Errorf("not ready: %s", strings.Join(broken, "; "))
	}
	fmt.Fprintln(w.stdout, "ready")
	return nil
}
