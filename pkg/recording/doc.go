// SPDX-License-Identifier: Apache-2.0

// Package recording writes, checks and plays the recording of a watched console (procedure.md 3.5, 4.4; console.md 8).
//
// # The file
//
// It is an asciicast of version 3 (docs.asciinema.org/manual/asciicast/v3), so that a stock player plays it as it is. The first
// line is the header. Every further event line is a frame, and behind the header and behind every frame stands a comment line
//
//	# <number> <chain hash in hex>
//
// The header is frame 0; its chain hash is SHA-256("recording/" + incident + "/" + grant + header line), that of every other
// frame SHA-256(chain hash before || event line), lines with their newline. Intervals are whole milliseconds. The codes are
// those of the format: o (output), i (input), r (resize), m (marker), x (exit status); and ours, which players pass over,
// each one capital letter so that a conversion keeps it, with a JSON object as their text:
//
//	B  output that is not UTF-8, in base64; the o that follows is only its display form
//	H  one to three bytes that begin a character; the o that follows begins with them again
//	C  something was typed: who, how many bytes, SHA-256(salt || bytes); the salt is thrown away
//	R  a request that was refused     A  what the watcher has seen      F, T  frozen, thawed
//	N  the watcher's note             K  the watcher types, or ceases   D  input that was discarded
//	L  a higher limit                 E  the end, with totals
//
// An i frame holds what need not be kept secret: keys that are no text, and text that the target has echoed (see Echo). What
// was typed with the echo off remains a length and a commitment for ever.
//
// # What it promises
//
// A call of the Writer that returned nil has handed its frame to the operating system: if the process dies nothing of it is
// lost; if the machine dies, at most what came after the last Checkpoint. Frames stand in the order of the calls. After an error
// of the disk every further call fails. Whoever can write the file can forge it whole: only the checkpoints that lie in the
// incident's events (anchors) prove it, and Verify is to be given them (N21).
//
// The package knows no network and no clock: the time is asked through what is handed in.
package recording
