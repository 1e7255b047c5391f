package delegation_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kavach-dev/kavach/delegation"
)

func TestConstraintShapes(t *testing.T) {
	nested := func(depth int) string {
		return strings.Repeat(`{"constraint_type":"all","constraints":[`, depth-1) + simple("wildcard", "") + strings.Repeat("]}", depth-1)
	}
	list := func(n int) string { return strings.TrimSuffix(strings.Repeat("1,", n), ",") }
	long := func(n int) string { return strings.Repeat("a", n) }
	for name, c := range map[string]struct {
		constraint string
		want       delegation.Reason // "" is fine
	}{
		"optional":                     {simple("exact", `"value":1,"optional":true`), ""},
		"not optional":                 {simple("exact", `"value":1,"optional":false`), ""},
		"value null":                   {simple("exact", `"value":null`), ""},
		"lists that may be empty":      {clauses("all", simple("contains", `"required":[]`), simple("subset", `"allowed":[]`), simple("not_one_of", `"excluded":[]`)), ""},
		"range without bounds":         {simple("range", ""), ""},
		"range of one value":           {simple("range", `"min":1,"max":1.0`), ""},
		"range of nothing, allowed":    {simple("range", `"min":1,"max":1,"min_inclusive":false`), ""},
		"depth 32":                     {nested(32), ""},
		"64 items":                     {simple("one_of", `"values":[`+list(64)+`]`), ""},
		"1024 bytes":                   {simple("exact", `"value":"`+long(1024)+`"`), ""},
		"admissible":                   {simple("one_of", `"values":[1.0,1e20,0.1,-0,9007199254740994]`), ""},
		"null":                         {`null`, delegation.Malformed},
		"an array":                     {`[]`, delegation.Malformed},
		"no type":                      {`{"value":1}`, delegation.Malformed},
		"type null":                    {`{"constraint_type":null}`, delegation.Malformed},
		"type a number":                {`{"constraint_type":1}`, delegation.Malformed},
		"unknown":                      {simple("pattern", `"value":"*"`), delegation.UnknownConstraint},
		"unknown, empty":               {simple("", ""), delegation.UnknownConstraint},
		"case counts":                  {simple("Exact", `"value":1`), delegation.UnknownConstraint},
		"unknown in a clause":          {clauses("any", simple("exact", `"value":1`), simple("regex", "")), delegation.UnknownConstraint},
		"malformed before unknown":     {clauses("any", simple("regex", ""), simple("exact", "")), delegation.Malformed},
		"exact without value":          {simple("exact", ""), delegation.Malformed},
		"exact an array":               {simple("exact", `"value":[]`), delegation.Malformed},
		"exact an object":              {simple("exact", `"value":{}`), delegation.Malformed},
		"exact and more":               {simple("exact", `"value":1,"values":[1]`), delegation.Malformed},
		"one_of empty":                 {simple("one_of", `"values":[]`), delegation.Malformed},
		"one_of null":                  {simple("one_of", `"values":null`), delegation.Malformed},
		"one_of a string":              {simple("one_of", `"values":"a"`), delegation.Malformed},
		"one_of with another's member": {simple("one_of", `"allowed":["a"]`), delegation.Malformed},
		"not_one_of without":           {simple("not_one_of", ""), delegation.Malformed},
		"contains without":             {simple("contains", ""), delegation.Malformed},
		"subset an object":             {simple("subset", `"allowed":{}`), delegation.Malformed},
		"min a string":                 {simple("range", `"min":"1"`), delegation.Malformed},
		"min null":                     {simple("range", `"min":null`), delegation.Malformed},
		"max a boolean":                {simple("range", `"max":true`), delegation.Malformed},
		"min above max":                {simple("range", `"min":2,"max":1`), delegation.Malformed},
		"inclusive without its bound":  {simple("range", `"min":2,"max_inclusive":true`), delegation.Malformed},
		"inclusive a number":           {simple("range", `"min":2,"min_inclusive":1`), delegation.Malformed},
		"inclusive null":               {simple("range", `"min":2,"min_inclusive":null`), delegation.Malformed},
		"range with a value":           {simple("range", `"value":2`), delegation.Malformed},
		"all without":                  {simple("all", ""), delegation.Malformed},
		"all empty":                    {clauses("all"), delegation.Malformed},
		"any empty":                    {clauses("any"), delegation.Malformed},
		"any an object":                {simple("any", `"constraints":{}`), delegation.Malformed},
		"wildcard with a value":        {simple("wildcard", `"value":1`), delegation.Malformed},
		"optional null":                {simple("wildcard", `"optional":null`), delegation.Malformed},
		"optional a string":            {simple("wildcard", `"optional":"true"`), delegation.Malformed},
		"optional clause":              {clauses("all", simple("wildcard", `"optional":true`)), delegation.Malformed},
		"clause said not optional":     {clauses("all", simple("wildcard", `"optional":false`)), delegation.Malformed},
		"depth 33":                     {nested(33), delegation.Malformed},
		"65 items":                     {simple("one_of", `"values":[`+list(65)+`]`), delegation.Malformed},
		"65 items further down":        {simple("one_of", `"values":[{"a":[`+list(65)+`]}]`), delegation.Malformed},
		"65 clauses":                   {clauses("any", slices.Repeat([]string{simple("wildcard", "")}, 65)...), delegation.Malformed},
		"1025 bytes":                   {simple("exact", `"value":"`+long(1025)+`"`), delegation.Malformed},
		"1025 bytes in a name":         {simple("one_of", `"values":[{"`+long(1025)+`":1}]`), delegation.Malformed},
		"inadmissible value":           {simple("exact", `"value":9007199254740993`), delegation.Malformed},
		"inadmissible further down":    {simple("subset", `"allowed":[[1.00000000000000001]]`), delegation.Malformed},
		"inadmissible bound":           {simple("range", `"max":1e400`), delegation.Malformed},
		"underflow":                    {simple("range", `"max":1e-400`), delegation.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			token := rootToken().with(toolsEntry(forArgument(c.constraint))).String()
			_, err := verifier(t).Verify(token, now)
			parsed, parseErr := delegation.ParseConstraint(parseValue(t, c.constraint))
			if c.want == "" {
				if err != nil || parseErr != nil {
					t.Fatal(err, parseErr)
				}
				again, err := delegation.ParseConstraint(parseValue(t, parsed.String()))
				if err != nil || again.String() != parsed.String() || again.IsOptional() != parsed.IsOptional() {
					t.Errorf("%s does not come back: %s, %v", parsed, again, err)
				}
				return
			}
			wantRefusal(t, err, c.want, delegation.DimensionTools)
			wantRefusal(t, parseErr, c.want, delegation.DimensionTools)
			if parsed.Err() == nil {
				t.Error("a refused constraint must not be one")
			}
		})
	}
}

func TestArgumentMapShapes(t *testing.T) {
	wild := simple("wildcard", "")
	arguments := func(n int) string {
		var list []string
		for i := range n {
			list = append(list, fmt.Sprintf(`"a%d":%s`, i, wild))
		}
		return `{"get":{` + strings.Join(list, ",") + `}}`
	}
	for name, c := range map[string]struct {
		tools string
		want  delegation.Reason
	}{
		"32 arguments":                 {arguments(32), ""},
		"33 arguments":                 {arguments(33), delegation.Malformed},
		"the star a wildcard":          {`{"get":{"*":` + wild + `}}`, ""},
		"the star something else":      {`{"get":{"*":` + simple("range", "") + `}}`, delegation.Malformed},
		"the star optional":            {`{"get":{"*":` + simple("wildcard", `"optional":true`) + `}}`, delegation.Malformed},
		"the star said not optional":   {`{"get":{"*":` + simple("wildcard", `"optional":false`) + `}}`, delegation.Malformed},
		"a long name":                  {`{"get":{"` + strings.Repeat("a", 1025) + `":` + wild + `}}`, delegation.Malformed},
		"unknown, on another tool":     {`{"a":{"x":` + simple("regex", "") + `},"get":{}}`, delegation.UnknownConstraint},
		"unknown, and malformed later": {`{"a":{"x":` + simple("regex", "") + `},"get":{"x":{}}}`, delegation.Malformed},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := verifier(t).Verify(rootToken().with(toolsEntry(c.tools)).String(), now)
			if c.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			wantRefusal(t, err, c.want, delegation.DimensionTools)
		})
	}
}
