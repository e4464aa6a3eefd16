package main

// row is one or some lines of the report. Its run ends by t.Fatal where it cannot go on; a contender that fails is told
// in its series instead.
type row struct {
	name  string
	about string
	run   func(l *lab, t *host, rep *report)
}

// rows lists all, in the order of the report.
func rows() []row {
	return []row{
		{"line", "is the WAN what it should be? the proxy's round trip and rates, and ssh through it", lineRow},
		{"small-lan", "first sync of 100,000 files of 4 KiB, LAN: georep, rsync, tar over ssh", smallRow(lan, ratioGoal(0.8))},
		{"small-wan", "the same over the WAN", smallRow(wan, ratioGoal(0.25))},
		{"big-lan", "one random file of 1 GiB, LAN: georep, rsync, ssh alone", bigRow(lan, ratioGoal(0.5))},
		{"big-wan", "the same over the WAN", bigRow(wan, ratioGoal(0.2))},
		{"serve-lan", "the first two over the LAN to georep serve: georep, rsync, georep over sshd", serveRow},
		{"delta", "1 MiB changed inside 1 GiB, WAN: time and bytes", deltaRow},
		{"ten", "10 of 10,000 and of 1,000,000 files changed: georep live, rsync", tenRow},
		{"restart", "start with nothing changed, 1,000,000 files: georep, rsync", restartRow},
		{"latency", "a write until it is visible: georep, LAN and WAN, and lsyncd", latencyRow},
		{"burst", "10,000 files of 10 to 100 KiB at once: georep live, lsyncd", burstRow},
		{"rename", "a directory of 10,000 files renamed: georep live, rsync", renameRow},
		{"names", "20,000 names of one file: first sync, made live, its content changed; and writes elsewhere meanwhile", namesRow},
		{"marker", "a load of metadata with the marker and without, and how fast it marks", markerRow},
		{"memory", "peak memory of each process, 100,000 and 1,000,000 files", memoryRow},
		{"growth", "first sync, restart and one change at 10,000, 100,000 and 1,000,000 files", growthRow},
		{"sftp", "first sync of 100,000 files of 4 KiB by SFTP alone, WAN: georep, rclone; and one change", sftpRow},
		{"syscalls", "system calls a file in a first sync of 10,000 files of 4 KiB: georep, rsync", syscallsRow},
		{"service", "50 sessions of one service, idle: time until all are Active, memory, processor time", serviceRow},
	}
}
