// SPDX-License-Identifier: Apache-2.0

package session

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// States of sockets that wait for others, in the kernel's tables: see proc_pid_net(5).
const (
	tcpListens   = "0A"
	udpBound     = "07"
	unixAccepts  = 1 << 16
	fieldsOfInet = 10
)

// sockets notes what listens, in the network namespace of the agent.
func (k *Keeper) sockets(v *view) {
	for _, proto := range []string{"tcp", "tcp6", "udp", "udp6"} {
		path := filepath.Join(k.cfg.Proc, "net", proto)
		b, err := os.ReadFile(path)
		v.unseen(path, err)
		for line := range strings.Lines(string(b)) {
			if name, ok := inet(proto, strings.Fields(line)); ok {
				v.Things[KindSocket][name] = state{}
			}
		}
	}
	path := filepath.Join(k.cfg.Proc, "net/unix")
	b, err := os.ReadFile(path)
	v.unseen(path, err)
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 8 {
			continue // nobody can find a socket without a name
		}
		if flags, err := strconv.ParseUint(f[3], 16, 32); err == nil && flags&unixAccepts != 0 {
			v.Things[KindSocket]["unix "+shorten(strings.Join(f[7:], " "), 200)] = state{}
		}
	}
}

// inet names a socket that listens, by its line.
func inet(proto string, f []string) (string, bool) {
	if len(f) < fieldsOfInet {
		return "", false
	}
	tcp := strings.HasPrefix(proto, "tcp")
	if tcp && f[3] != tcpListens || !tcp && f[3] != udpBound {
		return "", false
	}
	address, ok := parseAddress(f[1])
	if !ok {
		return "", false // the heading
	}
	return fmt.Sprintf("%s %s of user %s", strings.TrimSuffix(proto, "6"), address, f[7]), true
}

// parseAddress reads an address as the kernel prints it: 32-bit words in the machine's order (little-endian on all that Go's
// Linux ports we build for have), and a port.
func parseAddress(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	b, err := hex.DecodeString(host)
	n, errPort := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || errPort != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr, uint16(n)), ok
}
