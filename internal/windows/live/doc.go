// Package live is the Windows that this program runs in: a windows.System that answers from itself.
//
// [System] also is the windows.Guest that a powered-off disk cannot be, makes every windows.Change, and does what the checker
// inside Windows needs besides: it keeps the Windows Update service off for a while, runs Sysprep, and tells the locales.
// It judges nothing and asks nobody: whoever calls it has asked.
//
// What runs on Windows alone is in the files whose names end in _windows.go. The rest reads bytes and keys that any
// windows.System can have, and is tested anywhere.
//
// It has been run under Wine, never on a real Windows. What is not told there (disks, licences, the Security Center) is written
// to Microsoft's documentation of the interfaces, named where they are used.
//
// Start reading at System.
package live
