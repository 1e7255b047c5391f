package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is set by the linker for a release (see the Makefile).
var version = ""

type versionCmd struct{ jsonFlag }

func (c *versionCmd) Run(w *world) error {
	info := buildVersion()
	if c.JSON {
		return w.printJSON(info)
	}
	fmt.Fprintf(w.stdout, "kavach %s (%s, %s/%s)\n", info.Version, info.Go, info.OS, info.Arch)
	return nil
}

// versionInfo is what `kavach version --json` prints.
type versionInfo struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	OS       string `json:"os"`
	Arch     string `json:"arch"`
}

// buildVersion reads what the linker and the go command left in the binary.
func buildVersion() versionInfo {
	v := versionInfo{Version: version, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v.Version == "" {
			v.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Revision = s.Value
			case "vcs.modified":
				v.Modified = s.Value == "true"
			}
		}
	}
	if v.Version == "" {
		v.Version = "(devel)"
	}
	return v
}
