// SPDX-License-Identifier: Apache-2.0

package testenv

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"

	"cacert.org/emergency/services/agent"
	"cacert.org/emergency/services/internal/demobook"
)

// Agent is the agent on a host, in this process.
type Agent struct {
	e     *Env
	stop  context.CancelFunc
	ended chan error
	agent *agent.Agent
}

// AgentConfig is the configuration of the agent on a host.
func (e *Env) AgentConfig(host string) agent.Config {
	kind := agent.KindHost
	if host == demobook.Test {
		kind = agent.KindTest
	}
	cfg := agent.Config{
		Name: host, Kind: kind, Root: e.Root(host), Exclude: []string{Secret}, StateDir: filepath.Join(e.Dir, "agents", host),
		Profile: e.Data("agents", host), Keyring: e.Data("services.keys.json"), Services: "localhost:1",
	}
	if host == demobook.Host && e.Target != nil {
		cfg.Console = e.Target.Console()
	}
	return cfg
}

// StartAgent starts the agent on a host.
func (e *Env) StartAgent(host string) *Agent {
	e.t.Helper()
	return e.StartAgentWith(e.AgentConfig(host), agent.Deps{Dialer: e.Dial})
}

// StartAgentWith starts an agent that is configured otherwise; its log and clock are the test's.
func (e *Env) StartAgentWith(cfg agent.Config, deps agent.Deps) *Agent {
	e.t.Helper()
	deps.Log, deps.Now = slog.New(slog.NewTextHandler(e.Log, nil)), e.Clock.Now
	made, err := agent.New(cfg, deps)
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	a := &Agent{e: e, stop: stop, ended: make(chan error, 1), agent: made}
	go func() { a.ended <- made.Run(ctx) }()
	e.agents[cfg.Name] = a
	return a
}

// Agent is the agent on a host that was started last.
func (e *Env) Agent(host string) *Agent {
	e.t.Helper()
	a := e.agents[host]
	if a == nil {
		e.t.Fatalf("no agent was started on %s", host)
	}
	return a
}

// Stop stops the agent in order. Stopping it again does nothing.
func (a *Agent) Stop() {
	if a.agent == nil {
		return
	}
	a.stop()
	if err := errors.Join(<-a.ended, a.agent.Close()); err != nil {
		a.e.t.Errorf("the agent did not end in order: %v", err)
	}
	a.agent = nil
}
