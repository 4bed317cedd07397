// Package registry reads and writes Windows registry hives: the files in Windows\System32\config, the boot
// configuration (BCD) and users' NTUSER.DAT.
//
//	┌────────────┬──────────────────────┬──────────────────────┬─ ─ ─
//	│ base block │ hbin: header │ cells │ hbin: header │ cells │
//	│ 4096 bytes │ n × 4096 bytes       │ n × 4096 bytes       │
//	└────────────┴──────────────────────┴──────────────────────┴─ ─ ─
//	               ▲ offsets inside the hive count from here
//
// A cell is a signed 32-bit size (negative: in use) and its contents: a key (nk), a list of keys (lf, lh, li, ri), a value
// (vk), a list of values, a value's data, a list of segments of long data (db), or a security descriptor (sk).
//
// [Open] reads a hive through an io.ReaderAt and touches only the cells on the path that is asked for; the transaction logs of
// a hive that was not cleanly closed are applied in memory, and nothing is ever written to the source. [Hive.Patch] tells
// which bytes would change values, for the caller to put over its image. [Parse] and [Format] are regedit's text, [Build] makes
// a hive of it; Berth's test machines come into being that way.
//
// A reader does not know which hive it reads, what CurrentControlSet stands for, or what any value means: windows/offline and
// check do. It does not follow links between keys, decode security descriptors, add keys to an existing hive or make one grow.
//
// The format is not documented by Microsoft. The numbers here are those that M. Suhanov's "Windows registry file format
// specification" gives, held in the tests against hivex and against hives that Windows wrote.
//
// Start reading at [Open], or at [Parse] for the way back.
package registry
