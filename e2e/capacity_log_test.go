package e2e

import (
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// verified is what `kavach audit verify` said of a data folder, and what that
// took.
type verified struct {
	OK       bool  `json:"ok"`
	Records  int64 `json:"records"`
	Bytes    int64 `json:"bytes"`
	Findings []struct {
		Kind  string
		First int64
	}
	took   time.Duration
	memory int // MiB at most, −1 where that is not known
}

func verifyFolder(t *testing.T, data string) (v verified) {
	t.Helper()
	cmd := exec.Command(binary, "audit", "verify", "--dev", "--data", data, "--json")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	began := time.Now()
	out, err := cmd.Output()
	if bad := json.Unmarshal(out, &v); bad != nil {
		t.Fatalf("audit verify: %v %v: %s %s", err, bad, out, stderr.String())
	}
	if (err == nil) != v.OK {
		t.Fatalf("audit verify says %s and ends with %v", out, err)
	}
	v.took, v.memory = time.Since(began), -1
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok && runtime.GOOS == "linux" {
		v.memory = int(usage.Maxrss >> 10) // KiB there, bytes elsewhere
	}
	return v
}

// perRecord is what differs between two records that say the same.
var perRecord = regexp.MustCompile(`"(?:id|prev)":"[^"]*"|"seq":\d+`)

// lengthen continues the log of a stopped server with copies of its last
// record, chained as an independent reader of audit.md would chain them.
func lengthen(t *testing.T, db *sql.DB, size int64) {
	t.Helper()
	rows, err := db.Query(`SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'audit_records' AND sql IS NOT NULL`)
	if err != nil {
		t.Fatal(err)
	}
	var indexes []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		indexes = append(indexes, name)
	}
	rows.Close()
	for _, name := range indexes { // nothing of verify uses them, and filling them is most of the work
		if _, err := db.Exec(`DROP INDEX ` + name); err != nil {
			t.Fatal(err)
		}
	}
	var seq int64
	var text, leaf string
	if err := db.QueryRow(`SELECT r.seq, r.bytes, h.leaf FROM audit_records r, audit_head h WHERE r.seq = h.size - 1`).Scan(&seq, &text, &leaf); err != nil {
		t.Fatal(err)
	}
	tx, err := db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	insert, err := tx.Prepare(`INSERT INTO audit_records SELECT $1, $2, wrote, time, $3, $4, path, agent, sub, action, resource, result, grant_id FROM audit_records WHERE seq = ` + strconv.FormatInt(seq, 10))
	if err != nil {
		t.Fatal(err)
	}
	for next := seq + 1; next < size; next++ {
		id := "01900000-0000-7000-8000-" + strconv.FormatInt(1e11+next, 10)
		record := perRecord.ReplaceAllStringFunc(text, func(member string) string {
			switch member[1:3] {
			case "id":
				return `"id":"` + id + `"`
			case "pr":
				return `"prev":"` + leaf + `"`
			}
			return `"seq":` + strconv.FormatInt(next, 10)
		})
		sum := sha256.Sum256([]byte("\x00" + record))
		leaf = base64.RawURLEncoding.EncodeToString(sum[:])
		if _, err := insert.Exec(next, id, record, leaf); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tx.Exec(`UPDATE audit_head SET size = $1, leaf = $2`, size, leaf); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// TestFaultLongLog is E26: verifying a long log takes no more memory than
// verifying a short one, and finds the one record in it that was changed.
func TestFaultLongLog(t *testing.T) {
	s := startIn(t, site{Data: filepath.Join(t.TempDir(), "data")})
	register(t, s.Issuer)
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	short := verifyFolder(t, s.Data)
	db, err := sql.Open("sqlite", filepath.Join(s.Data, "kavach.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	size := int64(times(20_000, 1_000_000))
	if text := os.Getenv("KAVACH_FAULTS_RECORDS"); text != "" {
		if size, err = strconv.ParseInt(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	lengthen(t, db, size)
	got := verifyFolder(t, s.Data)
	if !got.OK || got.Records != size {
		t.Fatalf("%+v", got)
	}
	if got.memory > 64 && got.memory > short.memory*2 {
		t.Errorf("%d MiB for %d records, %d MiB for %d", got.memory, got.Records, short.memory, short.Records)
	}

	if _, err := db.Exec(`DROP TRIGGER audit_records_no_update`); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`UPDATE audit_records SET bytes = replace(bytes, '"result":"allowed"', '"result":"refused"') WHERE seq = $1`, size/2); err != nil {
		t.Fatal(err)
	}
	if damaged := verifyFolder(t, s.Data); damaged.OK || len(damaged.Findings) == 0 || damaged.Findings[0].First != size/2 {
		t.Errorf("record %d was changed: %+v", size/2, damaged)
	}
	t.Logf("E26: %d records (%d MiB of them) verified in %v, %.0f a second, in %d MiB; %d records in %d MiB; the changed one of them found",
		got.Records, got.Bytes>>20, got.took.Round(time.Millisecond), float64(got.Records)/got.took.Seconds(), got.memory, short.Records, short.memory)
}
