package e2e

import (
	"os/exec"
	"syscall"
)

// dieWithUs has the kernel kill cmd, or do to it what it says itself, when the
// thread that starts it ends, which is at the latest when the test does, however
// that ends.
func dieWithUs(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	}
}
