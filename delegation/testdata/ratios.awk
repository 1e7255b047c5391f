# Reads the output of go test -bench of package delegation, several rounds of
# it, and prints the least time of each benchmark beside that of its floor.
/ns\/op/ {
	name = $1
	sub(/^Benchmark/, "", name)
	sub(/-[0-9]+$/, "", name)
	for (i = 2; i < NF; i++) {
		if ($(i + 1) == "ns/op" && (!(name in least) || $i + 0 < least[name])) least[name] = $i + 0
		if ($(i + 1) == "allocs/op") allocs[name] = $i
	}
	if (!(name in seen)) { seen[name] = 1; order[++n] = name }
}
END {
	printf "%-28s %10s %8s   %s\n", "benchmark", "µs", "allocs", "ratio"
	for (i = 1; i <= n; i++) {
		name = order[i]
		floor = ""
		if (name ~ /^Verify\// || name ~ /^JWTLibrary\//) { floor = name; sub(/^[^\/]*/, "Ed25519", floor) }
		if (name ~ /^VerifyCached\//) floor = "Ed25519/links=1"
		if (name == "Derive") floor = "Ed25519Sign"
		printf "%-28s %10.1f %8s", name, least[name] / 1000, allocs[name]
		if (floor in least) printf "   %.2f × %s", least[name] / least[floor], floor
		printf "\n"
	}
}
