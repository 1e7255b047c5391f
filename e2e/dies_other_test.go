//go:build !linux

package e2e

import "os/exec"

// dieWithUs does nothing where the kernel does not offer it.
func dieWithUs(*exec.Cmd) {}
