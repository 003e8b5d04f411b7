// SPDX-License-Identifier: Apache-2.0

package channel

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"syscall"
)

// TLSFiles name the files of a TLS client.
type TLSFiles struct {
	// CAFile holds the authorities to trust, PEM; those of the system if empty.
	CAFile string
	// CertFile and KeyFile are the client certificate and its key, PEM; none if empty.
	CertFile, KeyFile string
}

// Config reads the files. Errors name the setting, prefixed by where it stands, such as "irc".
func (f TLSFiles) Config(prefix, serverName string) (*tls.Config, error) {
	c := &tls.Config{ServerName: serverName, MinVersion: tls.VersionTLS12}
	if f.CAFile != "" {
		pem, err := os.ReadFile(f.CAFile)
		if err != nil {
			return nil, fmt.Errorf("%s.ca_file: %w", prefix, err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s.ca_file: %s holds no certificate in PEM form", prefix, f.CAFile)
		}
	}
	if f.CertFile == "" && f.KeyFile == "" {
		return c, nil
	}
	pair, err := tls.LoadX509KeyPair(f.CertFile, f.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("%s.cert_file and %s.key_file: %w", prefix, prefix, err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

// Loopback tells whether a host is this machine. Only there may a channel speak without TLS.
func Loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// OnlyLoopback is a net.Dialer Control for connections without TLS: the name that was checked when the service started
// may lead elsewhere today.
func OnlyLoopback(_, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil || !Loopback(host) {
		return fmt.Errorf("refused: no TLS, and the server is not on this machine")
	}
	return nil
}
