package audit

// MaxRecord is the size limit of a record in bytes.
const MaxRecord = 8192

// Draft is a validated, encoded entry that waits for its place in the log.
type Draft struct{}

// Record is an entry at its place in the log, with the columns it is found by.
type Record struct{}
