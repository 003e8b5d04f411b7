// SPDX-License-Identifier: Apache-2.0

package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"
)

// Serve accepts subjects on the listener until ctx ends or the listener fails; it closes the listener. Sessions go on until
// Close.
func (b *Broker) Serve(ctx context.Context, listener net.Listener) error {
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	defer listener.Close()
	for {
		select { // before accepting: who comes while all places are taken waits outside, where it costs nothing
		case b.handshakes <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := listener.Accept()
		if err != nil {
			<-b.handshakes
			if ctx.Err() != nil {
				return nil
			}
			if temporary(err) {
				continue
			}
			return fmt.Errorf("accept subjects: %w", err)
		}
		b.spawn(func() { b.welcome(conn) })
	}
}

// temporary is whether the next Accept may succeed: the other side was gone already, or there are no descriptors left, which
// passes and must not end the gateway. Either waits a moment, so that it does not spin.
func temporary(err error) bool {
	var n net.Error
	if errors.Is(err, net.ErrClosed) || !errors.As(err, &n) {
		return false
	}
	time.Sleep(50 * time.Millisecond)
	return true
}

// welcome serves one connection. A defect in it ends it and nothing else.
func (b *Broker) welcome(conn net.Conn) {
	defer conn.Close()
	defer func() {
		if r := recover(); r != nil {
			b.cfg.Log.ErrorContext(b.ctx, "defect", "in", "connection", "panic", r, "stack", string(debug.Stack()))
		}
	}()
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(keepAlive())
	}
	c := b.handshake(conn)
	<-b.handshakes
	if c == nil {
		return
	}
	select {
	case b.connections <- struct{}{}:
		defer func() { <-b.connections }()
		c.serve()
	default:
		b.cfg.Log.WarnContext(b.ctx, "too many connections", "source", c.attempt.Source)
		b.recordRefusal(c.ref, c.refusal("connection", refused(ReasonOverloaded, "the gateway has too many connections: try again")))
	}
}

// proven is where the verified certificate's content is kept in the permissions of a connection.
type proven struct{}

type identity struct {
	ref         Ref
	serial      uint64
	fingerprint string
}

// handshake returns the connection once the client has proven its certificate's key; nil otherwise.
func (b *Broker) handshake(conn net.Conn) *connection {
	var bad *badCredential // why a certificate of ours was not taken, whose key the client has
	cfg := &ssh.ServerConfig{
		MaxAuthTries: 3, ServerVersion: "SSH-2.0-epatch", PublicKeyAuthAlgorithms: []string{ssh.KeyAlgoED25519},
		// What this returns about an offered key only restricts: an offer proves nothing (N24).
		PublicKeyCallback: func(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			_, err := b.checkCertificate(meta, key)
			var no *badCredential
			switch cert, is := key.(*ssh.Certificate); {
			case err != nil && bad != nil:
				return nil, err // a stock client offers the bare key after its certificate: what counts was said
			case err != nil && !(errors.As(err, &no) && no.ref != (Ref{})):
				return nil, told(err)
			case is: // ours: if it is a bad one, that is said to whoever proves that he has its key, and is recorded then
				p := &ssh.Permissions{CriticalOptions: map[string]string{}}
				if source := cert.CriticalOptions[optionSource]; source != "" {
					p.CriticalOptions[optionSource] = source
				}
				return p, nil
			}
			return nil, errors.New("no certificate")
		},
		// Who it is comes from the key whose signature was verified, and from nowhere else.
		VerifiedPublicKeyCallback: func(meta ssh.ConnMetadata, key ssh.PublicKey, p *ssh.Permissions, _ string) (*ssh.Permissions, error) {
			cert, err := b.checkCertificate(meta, key)
			if err != nil {
				errors.As(err, &bad)
				return nil, told(err)
			}
			ref, _ := ParseLogin(cert.ValidPrincipals[0])
			p.ExtraData = map[any]any{proven{}: identity{ref, cert.Serial, ssh.FingerprintSHA256(cert.Key)}}
			return p, nil
		},
	}
	cfg.AddHostKey(b.cfg.HostKey)
	_ = conn.SetDeadline(time.Now().Add(handshakeWithin))
	server, channels, requests, err := ssh.NewServerConn(conn, cfg)
	source := host(conn.RemoteAddr())
	if err != nil {
		b.cfg.Log.InfoContext(b.ctx, "no credential was proven", "source", source, "error", oneLine(err.Error(), 500))
		if bad != nil && bad.ref != (Ref{}) {
			b.recordRefusal(bad.ref, RefusedAttempt{Source: source, What: "login", Reason: ReasonKey, Text: bad.text, At: b.cfg.Clock.Now()})
		}
		return nil
	}
	_ = conn.SetDeadline(time.Time{})
	who, ok := identity{}, false
	if server.Permissions != nil {
		who, ok = server.Permissions.ExtraData[proven{}].(identity)
	}
	if !ok {
		server.Close()
		return nil
	}
	return &connection{
		b: b, conn: server, channels: channels, globals: requests, ref: who.ref, surface: console(), notes: make(chan note, 8),
		attempt: Attempt{Serial: who.serial, Fingerprint: who.fingerprint, Source: source, Client: oneLine(string(server.ClientVersion()), 100)},
	}
}

// told is an error that the client is told of, too.
func told(err error) error {
	return &ssh.BannerError{Err: err, Message: "epatch: " + oneLine(err.Error(), 500) + "\r\n"}
}

func host(a net.Addr) string {
	h, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return h
}

// recordRefusal records what was refused outside of a session.
func (b *Broker) recordRefusal(ref Ref, r RefusedAttempt) {
	ctx, cancel := context.WithTimeout(b.ctx, callWithin)
	defer cancel()
	if err := b.cfg.Rules.Refused(ctx, ref, r); err != nil {
		b.cfg.Log.WarnContext(ctx, "a refused attempt was not recorded", "grant", ref.String(), "what", r.What, "error", err)
	}
}

// HostPort is Config.Address in parts.
func (b *Broker) HostPort() (string, int) {
	h, p, _ := net.SplitHostPort(b.cfg.Address)
	port, _ := strconv.Atoi(p)
	return h, port
}
