package people

// fullMemory is what a hash costs outside of these tests.
var fullMemory = argonMemory

// Under the race detector a hash at full cost takes a second.
func init() { argonMemory = 64 }
