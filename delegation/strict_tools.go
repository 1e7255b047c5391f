package delegation

import "github.com/kavach-dev/kavach/jcs"

// parseStrictTools is 3n and 4o.
func parseStrictTools(v jcs.Value) (Tools, bool) {
	tools, refusal := parseToolsWithin(v, strictLimits)
	return tools, refusal == nil
}

// strictCovers is 4p1 to 4p4: it names the first that fails, "" if none does.
func strictCovers(parent, child Tools) string {
	if gap := parent.gap(child); gap != nil {
		return gap.rule
	}
	return ""
}

// strictAllows is 6b.
func strictAllows(tools Tools, tool string, arguments jcs.Value) bool {
	call, ok := measure(Call{Name: tool, Arguments: arguments})
	if !ok {
		return false
	}
	_, ok = tools.allows(call)
	return ok
}
