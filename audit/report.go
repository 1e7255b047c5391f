package audit

// Kind is a kind of damage (audit.md §5).
type Kind string

// The kinds that the records and the head prove. What only a checkpoint kept
// elsewhere can prove comes with checkpoints.
const (
	// WrongLog: the bytes belong to another log.
	WrongLog Kind = "wrong-log"
	// Missing: records are gone.
	Missing Kind = "missing"
	// Reordered: a record of this log stands in another's place.
	Reordered Kind = "reordered"
	// Inserted: what stands there was never a record of this log.
	Inserted Kind = "inserted"
	// Edited: the record is not what was written.
	Edited Kind = "edited"
)

// Finding is one piece of damage.
type Finding struct {
	Kind Kind
	// First and Last are the seqs it covers; equal but for Missing.
	First, Last int64
	// Note says how it showed.
	Note string
}

// Report is what Verify found.
type Report struct {
	// Log is the id of the log.
	Log string
	// Size is how many records the head says there are, Records how many were
	// read, Bytes how many bytes they have.
	Size, Records, Bytes int64
	// Head is the leaf hash of the last record as the head has it.
	Head string
	// Findings are in order of seq; empty: all holds. After MaxFindings the
	// rest is not looked at and Truncated is true.
	Findings  []Finding
	Truncated bool
}

// OK reports whether all holds.
func (r *Report) OK() bool { return len(r.Findings) == 0 && !r.Truncated }

// MaxFindings bounds a report.
const MaxFindings = 1000
