-- SPDX-License-Identifier: Apache-2.0
-- +goose Up
CREATE TABLE incidents (
    incident text COLLATE "C" NOT NULL,
    drill boolean NOT NULL,
    status text NOT NULL,
    strategy bigint NOT NULL,
    system text NOT NULL,
    severity text NOT NULL,
    reason_class text NOT NULL,
    declared_at timestamptz NOT NULL,
    declared_by text NOT NULL,
    due_at timestamptz,
    met_at timestamptz,
    ended_at timestamptz,
    outcome text NOT NULL,
    merged_into text NOT NULL,
    policy bigint,
    position bigint NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (incident)
);
COMMENT ON TABLE incidents IS 'One row an emergency or drill, as of its last record';
COMMENT ON COLUMN incidents.incident IS 'Incident, such as e20261124.1; drills begin with x';
COMMENT ON COLUMN incidents.drill IS 'A drill; leave these out of statistics';
COMMENT ON COLUMN incidents.status IS 'OPEN, CLOSED, STOOD_DOWN or MERGED';
COMMENT ON COLUMN incidents.strategy IS 'Strategy in force: 1, 2 or 3';
COMMENT ON COLUMN incidents.system IS 'System concerned';
COMMENT ON COLUMN incidents.severity IS 'NORMAL or more, as declared';
COMMENT ON COLUMN incidents.reason_class IS 'Kind of reason, as declared';
COMMENT ON COLUMN incidents.declared_at IS 'T0, from which all times count';
COMMENT ON COLUMN incidents.declared_by IS 'Person who declared it';
COMMENT ON COLUMN incidents.due_at IS 'When the whole has to be done: 24 hours after T0 unless the policy says otherwise';
COMMENT ON COLUMN incidents.met_at IS 'When that was met; empty if it was not yet';
COMMENT ON COLUMN incidents.ended_at IS 'When it was closed, stood down or merged';
COMMENT ON COLUMN incidents.outcome IS 'What came of it, once closed';
COMMENT ON COLUMN incidents.merged_into IS 'Incident that absorbed it';
COMMENT ON COLUMN incidents.policy IS 'Number of the policy that it is under';
COMMENT ON COLUMN incidents.position IS 'Number of its last event';
COMMENT ON COLUMN incidents.recorded_at IS 'Time of its last record';

CREATE TABLE steps (
    incident text COLLATE "C" NOT NULL,
    number bigint NOT NULL,
    strategy bigint NOT NULL,
    step text NOT NULL,
    what text NOT NULL,
    done_at timestamptz,
    position bigint,
    times bigint NOT NULL,
    who text NOT NULL,
    role text NOT NULL,
    due_at timestamptz,
    PRIMARY KEY (incident, number)
);
COMMENT ON TABLE steps IS 'The steps of chapter 1 of the procedure, for every strategy that was in force, done or not';
COMMENT ON COLUMN steps.incident IS 'Incident, such as e20261124.1; drills begin with x';
COMMENT ON COLUMN steps.number IS 'Order of the steps within the incident';
COMMENT ON COLUMN steps.strategy IS 'Strategy that the step belongs to';
COMMENT ON COLUMN steps.step IS 'Number in the procedure, such as 1.6';
COMMENT ON COLUMN steps.what IS 'The step in words';
COMMENT ON COLUMN steps.done_at IS 'When it was done for the first time; empty if there is no evidence';
COMMENT ON COLUMN steps.position IS 'Event that did it first';
COMMENT ON COLUMN steps.times IS 'How many events did it';
COMMENT ON COLUMN steps.who IS 'Persons or machines who did it, in order';
COMMENT ON COLUMN steps.role IS 'Role in which it was done first';
COMMENT ON COLUMN steps.due_at IS 'When it had to be done, where there is a time for it';

CREATE TABLE deadlines (
    incident text COLLATE "C" NOT NULL,
    deadline text COLLATE "C" NOT NULL,
    due_at timestamptz NOT NULL,
    met_at timestamptz,
    PRIMARY KEY (incident, deadline)
);
COMMENT ON TABLE deadlines IS 'Due times of the policy from T0';
COMMENT ON COLUMN deadlines.incident IS 'Incident, such as e20261124.1; drills begin with x';
COMMENT ON COLUMN deadlines.deadline IS 'Key of the policy; overall is the 24 hours';
COMMENT ON COLUMN deadlines.due_at IS 'When it has to be met';
COMMENT ON COLUMN deadlines.met_at IS 'When it was met; empty if it was not';

CREATE TABLE obligations (
    incident text COLLATE "C" NOT NULL,
    obligation text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    owner_role text NOT NULL,
    owner text NOT NULL,
    due_at timestamptz NOT NULL,
    caused_at timestamptz NOT NULL,
    cause bigint NOT NULL,
    discharged_at timestamptz,
    discharged_by bigint,
    lifted_by text NOT NULL,
    how text NOT NULL,
    clause text NOT NULL,
    PRIMARY KEY (incident, obligation)
);
COMMENT ON TABLE obligations IS 'What is owed: emergency debts with an owner and a due time, open and discharged';
COMMENT ON COLUMN obligations.incident IS 'Incident, such as e20261124.1; drills begin with x';
COMMENT ON COLUMN obligations.obligation IS 'Id: kind and position of the cause';
COMMENT ON COLUMN obligations.kind IS 'Kind, such as LEAD_DECISION';
COMMENT ON COLUMN obligations.owner_role IS 'Role that owes it';
COMMENT ON COLUMN obligations.owner IS 'Person who owes it, where known';
COMMENT ON COLUMN obligations.due_at IS 'When it is due';
COMMENT ON COLUMN obligations.caused_at IS 'When its cause was recorded';
COMMENT ON COLUMN obligations.cause IS 'Position of its cause';
COMMENT ON COLUMN obligations.discharged_at IS 'When it was met or lifted; empty while it is open';
COMMENT ON COLUMN obligations.discharged_by IS 'Position that did so';
COMMENT ON COLUMN obligations.lifted_by IS 'Case in which it was lifted instead of met';
COMMENT ON COLUMN obligations.how IS 'Command that discharges it';
COMMENT ON COLUMN obligations.clause IS 'Where it comes from';

CREATE TABLE calls (
    incident text COLLATE "C" NOT NULL,
    page text COLLATE "C" NOT NULL,
    round bigint NOT NULL,
    team text NOT NULL,
    person text NOT NULL,
    channel text NOT NULL,
    sent_at timestamptz,
    state text NOT NULL,
    PRIMARY KEY (incident, page)
);
COMMENT ON TABLE calls IS 'Every message to a person, and what became of it';
COMMENT ON COLUMN calls.incident IS 'Incident, such as e20261124.1; drills begin with x';
COMMENT ON COLUMN calls.page IS 'Id of the message';
COMMENT ON COLUMN calls.round IS 'Round of the call-out';
COMMENT ON COLUMN calls.team IS 'Team called';
COMMENT ON COLUMN calls.person IS 'Person called';
COMMENT ON COLUMN calls.channel IS 'mail, sms, irc ...';
COMMENT ON COLUMN calls.sent_at IS 'When it was sent';
COMMENT ON COLUMN calls.state IS 'What became of it: PENDING, SENT, DELIVERED, FAILED ...';

CREATE TABLE deployments (
    incident text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    revision text NOT NULL,
    host text NOT NULL,
    strategy bigint NOT NULL,
    executor text NOT NULL,
    observer text NOT NULL,
    state text NOT NULL,
    started_at timestamptz NOT NULL,
    applied_at timestamptz,
    verified_at timestamptz,
    ended_at timestamptz,
    PRIMARY KEY (incident, position)
);
COMMENT ON TABLE deployments IS 'Every attempt to bring a revision to a critical host';
COMMENT ON COLUMN deployments.incident IS 'Incident, such as e20261124.1; drills begin with x';
COMMENT ON COLUMN deployments.position IS 'Event that began it';
COMMENT ON COLUMN deployments.revision IS 'Revision of the patch';
COMMENT ON COLUMN deployments.host IS 'Host';
COMMENT ON COLUMN deployments.strategy IS 'Strategy under which it was done';
COMMENT ON COLUMN deployments.executor IS 'Who did it';
COMMENT ON COLUMN deployments.observer IS 'Who observed; empty if nobody did, which is a debt';
COMMENT ON COLUMN deployments.state IS 'Where it stands, such as VERIFIED';
COMMENT ON COLUMN deployments.started_at IS 'When it began';
COMMENT ON COLUMN deployments.applied_at IS 'When the patch was on the host';
COMMENT ON COLUMN deployments.verified_at IS 'When the tree on the host was proven the right one';
COMMENT ON COLUMN deployments.ended_at IS 'When it was backed out or rolled back';

CREATE TABLE events (
    incident text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    type text NOT NULL,
    at timestamptz NOT NULL,
    late boolean NOT NULL,
    strategy bigint NOT NULL,
    person text NOT NULL,
    role text NOT NULL,
    machine text NOT NULL,
    PRIMARY KEY (incident, position)
);
COMMENT ON TABLE events IS 'Every event of every incident, without what it says';
COMMENT ON COLUMN events.incident IS 'Incident, such as e20261124.1; drills begin with x';
COMMENT ON COLUMN events.position IS 'Number within the incident, from 1';
COMMENT ON COLUMN events.type IS 'Type, such as incident.EmergencyDeclared';
COMMENT ON COLUMN events.at IS 'When it was recorded';
COMMENT ON COLUMN events.late IS 'Captured offline before';
COMMENT ON COLUMN events.strategy IS 'Strategy in force after it';
COMMENT ON COLUMN events.person IS 'Person who acted; empty for a machine';
COMMENT ON COLUMN events.role IS 'In which role';
COMMENT ON COLUMN events.machine IS 'Machine that acted; empty for a person';

CREATE TABLE emergency_log (
    origin text COLLATE "C" NOT NULL,
    entry bigint NOT NULL,
    incident text NOT NULL,
    kind text NOT NULL,
    at timestamptz NOT NULL,
    late boolean NOT NULL,
    headline text NOT NULL,
    who text NOT NULL,
    event_hash text NOT NULL,
    prev text NOT NULL,
    hash text NOT NULL,
    PRIMARY KEY (origin, entry)
);
COMMENT ON TABLE emergency_log IS 'The public emergency log as published: it holds nothing that the world may not know';
COMMENT ON COLUMN emergency_log.origin IS 'real, drills or archive: each is a log of its own';
COMMENT ON COLUMN emergency_log.entry IS 'Number in that log, from 1 without gaps';
COMMENT ON COLUMN emergency_log.incident IS 'Incident';
COMMENT ON COLUMN emergency_log.kind IS 'Type of the event';
COMMENT ON COLUMN emergency_log.at IS 'When it was recorded';
COMMENT ON COLUMN emergency_log.late IS 'Captured offline before';
COMMENT ON COLUMN emergency_log.headline IS 'What happened';
COMMENT ON COLUMN emergency_log.who IS 'Role and letter of who acted';
COMMENT ON COLUMN emergency_log.event_hash IS 'Record and event it comes from';
COMMENT ON COLUMN emergency_log.prev IS 'Hash of the entry before';
COMMENT ON COLUMN emergency_log.hash IS 'Hash of this entry';

CREATE TABLE emergency_log_fields (
    origin text COLLATE "C" NOT NULL,
    entry bigint NOT NULL,
    number bigint NOT NULL,
    field text NOT NULL,
    value text NOT NULL,
    PRIMARY KEY (origin, entry, number)
);
COMMENT ON TABLE emergency_log_fields IS 'The facts of the entries of the public log';
COMMENT ON COLUMN emergency_log_fields.origin IS 'real, drills or archive: each is a log of its own';
COMMENT ON COLUMN emergency_log_fields.entry IS 'Number in that log, from 1 without gaps';
COMMENT ON COLUMN emergency_log_fields.number IS 'Order within the entry, from 1';
COMMENT ON COLUMN emergency_log_fields.field IS 'Name of the fact';
COMMENT ON COLUMN emergency_log_fields.value IS 'Its value';

CREATE TABLE parked (
    incident text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (incident)
);
COMMENT ON TABLE parked IS 'Incidents that this version could not fold: their other rows stand still. There should be none';
COMMENT ON COLUMN parked.incident IS 'Incident, such as e20261124.1; drills begin with x';
COMMENT ON COLUMN parked.position IS 'First position that is not in the rows';
COMMENT ON COLUMN parked.reason IS 'Why';

CREATE VIEW step_durations AS
SELECT s.incident, i.drill, s.number, s.strategy, s.step, s.what, s.who, s.role, s.done_at,
       s.done_at - i.declared_at AS since_declared,
       s.done_at - lag(s.done_at) OVER (PARTITION BY s.incident ORDER BY s.done_at, s.number) AS since_step_before,
       s.due_at - s.done_at AS margin
FROM steps s JOIN incidents i ON i.incident = s.incident
WHERE s.done_at IS NOT NULL;
COMMENT ON VIEW step_durations IS 'How long each step took that was done: since T0, and since the step done before it';
COMMENT ON COLUMN step_durations.incident IS 'Incident';
COMMENT ON COLUMN step_durations.drill IS 'A drill';
COMMENT ON COLUMN step_durations.number IS 'Order of the steps within the incident';
COMMENT ON COLUMN step_durations.strategy IS 'Strategy that the step belongs to';
COMMENT ON COLUMN step_durations.step IS 'Number in the procedure';
COMMENT ON COLUMN step_durations.what IS 'The step in words';
COMMENT ON COLUMN step_durations.who IS 'Who did it';
COMMENT ON COLUMN step_durations.role IS 'In which role';
COMMENT ON COLUMN step_durations.done_at IS 'When it was done first';
COMMENT ON COLUMN step_durations.since_declared IS 'Time from T0';
COMMENT ON COLUMN step_durations.since_step_before IS 'Time from the step that was done before it; empty for the first';
COMMENT ON COLUMN step_durations.margin IS 'Time that was left until it was due; negative if it was late';

CREATE VIEW open_obligations AS
SELECT o.incident, i.drill, i.system, o.obligation, o.kind, o.owner_role, o.owner, o.due_at, o.due_at - now() AS due_in, o.how, o.clause
FROM obligations o JOIN incidents i ON i.incident = o.incident
WHERE o.discharged_by IS NULL
ORDER BY o.due_at, o.incident, o.obligation;
COMMENT ON VIEW open_obligations IS 'What is owed now, the most urgent first';
COMMENT ON COLUMN open_obligations.incident IS 'Incident';
COMMENT ON COLUMN open_obligations.drill IS 'A drill';
COMMENT ON COLUMN open_obligations.system IS 'System concerned';
COMMENT ON COLUMN open_obligations.obligation IS 'Id';
COMMENT ON COLUMN open_obligations.kind IS 'Kind';
COMMENT ON COLUMN open_obligations.owner_role IS 'Role that owes it';
COMMENT ON COLUMN open_obligations.owner IS 'Person who owes it, where known';
COMMENT ON COLUMN open_obligations.due_at IS 'When it is due';
COMMENT ON COLUMN open_obligations.due_in IS 'Time until then; negative if it is overdue';
COMMENT ON COLUMN open_obligations.how IS 'Command that discharges it';
COMMENT ON COLUMN open_obligations.clause IS 'Where it comes from';
