//! The recommendation as CloudEvents 1.0 JSON, by
//! `schema/recommendation.schema.json`.

use serde_json::{Map, Value, json};

use super::finding::{Finding, Outlook, Rule, lead};
use super::plan::{Change, HostState, Kind, Plan, host_peak, hosts};
use crate::clock::{Micros, SECOND, rfc3339};
use crate::config::GateConfig;
use crate::history::{Metric, Subject};

const SCHEMA: &str = "https://headroom.example/schemas/recommendation/v1";
/// Points of the forecast in the payload: 20 kB is the largest one recommended.
const MAX_POINTS: usize = 30;
/// Longest `reason` of the schema, characters.
const MAX_REASON: usize = 500;
/// Below that lead time a finding is a warning.
const WARNING_LEAD: Micros = 300 * SECOND;

/// Identity and times of the event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// ULID with prefix `rec_`.
    pub id: &'a str,
    /// Made at.
    pub now: Micros,
    /// Valid until.
    pub expires_at: Micros,
    /// No other of its kind until.
    pub cooldown_until: Micros,
}

/// The event of a plan.
#[must_use]
pub fn recommendation(
    event: &Event<'_>,
    plan: &Plan,
    outlooks: &[Outlook],
    config: &GateConfig,
) -> String {
    let finding = &plan.finding;
    let lead = lead(finding, event.now);
    let mut data = json!({
        "kind": plan.kind.name(),
        "mode": "recommend",
        "priority": if finding.crossed { 1 } else { 2 },
        "target": target(finding),
        "change": change(plan),
        "reason": reason(plan, lead),
        "evidence": evidence(finding),
        "forecast": forecast(finding),
        "confidence": round(finding.p_breach),
        "lead_time_s": lead / SECOND,
        "estimated_effect": {
            "before": state(&plan.before, config),
            "after": state(&plan.after, config),
            "net_gain_vcpu_s": round(3600.0 * (plan.before.waiting - plan.after.waiting)),
        },
        "blast_radius": blast_radius(plan),
        "whatif": whatif(plan, outlooks),
        "preconditions": preconditions(plan),
        "reversal": reversal(plan),
        "verify": verify(finding),
        "policy": {"name": "default", "version": "1", "quota_ok": true, "cooldown_until": rfc3339(event.cooldown_until)},
    });
    if let (Some(base), Some(data)) = (&config.ack_base, data.as_object_mut()) {
        let url = format!("{base}/v1/recommendations/{}/ack", event.id);
        data.insert(
            "ack".into(),
            json!({"url": url, "by": rfc3339(event.expires_at)}),
        );
    }
    let urgent = finding.crossed || lead < WARNING_LEAD;
    let body = json!({
        "specversion": "1.0",
        "id": event.id,
        "source": format!("/headroom/host/{}", segment(&finding.host.name)),
        "type": format!("io.headroom.recommendation.{}.v1", plan.kind.name()),
        "time": rfc3339(event.now),
        "subject": plan.subject(),
        "datacontenttype": "application/json",
        "dataschema": SCHEMA,
        "expirytime": rfc3339(event.expires_at),
        "correlationid": format!("plan_{}", ulid::Ulid::new()),
        "causationid": finding.id,
        "severitytext": if urgent { "warning" } else { "advice" },
        "data": data,
    });
    body.to_string()
}

/// The event that takes another one back, with an id of its own: the receiver
/// drops an id it has seen. `None` where the original is no JSON object.
#[must_use]
pub fn withdrawn(original: &str, id: &str, reason: &str, now: Micros) -> Option<String> {
    let mut event: Value = serde_json::from_str(original).ok()?;
    let fields = event.as_object_mut()?;
    let cause = fields.get("id")?.clone();
    let expiry = rfc3339(now + 600 * SECOND);
    for (key, value) in [
        ("id", json!(id)),
        ("type", json!("io.headroom.recommendation.withdrawn.v1")),
        ("time", json!(rfc3339(now))),
        ("expirytime", json!(expiry)),
        ("causationid", cause),
        ("severitytext", json!("info")),
    ] {
        fields.insert(key.into(), value);
    }
    let data = fields.get_mut("data")?.as_object_mut()?;
    data.insert("kind".into(), json!("withdrawn"));
    data.insert("reason".into(), json!(shorten(reason)));
    data.insert("lead_time_s".into(), json!(0));
    // Nothing is to be done, so nothing is to be acknowledged or verified.
    for key in ["change", "ack", "verify", "policy"] {
        data.remove(key);
    }
    Some(event.to_string())
}

fn target(finding: &Finding) -> Value {
    let platform = match finding.vm.as_ref().map_or("", |v| v.platform.as_str()) {
        known @ ("libvirt" | "openstack" | "proxmox" | "kubevirt") => known,
        _ => "generic",
    };
    let mut target = json!({"platform": platform, "host": finding.host.name});
    if let (Some(vm), Some(fields)) = (&finding.vm, target.as_object_mut()) {
        let mut named = json!({"uuid": vm.id, "name": vm.name});
        if let (Some(tenant), Some(fields)) = (&vm.tenant, named.as_object_mut()) {
            fields.insert("tenant".into(), json!(tenant));
        }
        fields.insert("vm".into(), named);
    }
    target
}

fn change(plan: &Plan) -> Value {
    match &plan.change {
        Change::Vcpus { from, to } => json!({"vcpus": {"from": from, "to": to}}),
        Change::Move { to } => {
            let (from, vm) = (
                &plan.finding.host.name,
                plan.finding.vm.as_ref().map_or("", |v| v.id.as_str()),
            );
            let step = json!({"order": 1, "vm_uuid": vm, "from_host": from, "to_host": to.name});
            json!({"from_host": from, "to_host": to.name, "steps": [step]})
        }
        Change::Threads { from, to } => {
            json!({"setting": {"key": "host.threads", "from": from, "to": to}})
        }
    }
}

fn reason(plan: &Plan, lead: Micros) -> String {
    let finding = &plan.finding;
    let who = finding.vm.as_ref().map_or_else(
        || finding.host.name.clone(),
        |v| format!("{} on {}", v.name, v.host),
    );
    let (what, of) = match finding.rule {
        Rule::VmDemand => ("CPU demand", format!("{:.2} vCPUs", finding.limit)),
        Rule::VmReady => ("ready per vCPU", format!("{:.1} %", 100.0 * finding.limit)),
        Rule::HostDemand => ("CPU demand", format!("{:.2} threads", finding.limit)),
    };
    let now = match finding.rule {
        Rule::VmReady => format!("{:.1} %", 100.0 * finding.outlook.present()),
        _ => format!("{:.2}", finding.outlook.present()),
    };
    let percent = 100.0 * finding.p_breach;
    let text = if finding.crossed {
        format!(
            "{who}: {what} is already above its limit of {of} (now {now}) and stays there with probability {percent:.0} %."
        )
    } else {
        let at = finding.breach_at.map_or_else(String::new, |at| {
            format!(" at {}", rfc3339(at / SECOND * SECOND))
        });
        format!(
            "{who}: {what} (now {now}) is forecast to cross its limit of {of}{at}, in {} s, with probability {percent:.0} %.",
            lead / SECOND
        )
    };
    let advice = match &plan.change {
        Change::Vcpus { from, to } => format!(" {to} vCPUs instead of {from} keep it below."),
        Change::Move { to } => format!(" {} has room for it.", to.name),
        Change::Threads { to, .. } => {
            let why = match finding.rule {
                Rule::VmReady => " No other host known here has room.",
                Rule::VmDemand => " It has a vCPU for every thread of the host already.",
                Rule::HostDemand => "",
            };
            format!("{why} {to} threads would keep the host's demand below its limit.")
        }
    };
    shorten(&(text + &advice))
}

fn evidence(finding: &Finding) -> Value {
    let outlook = &finding.outlook;
    let unit = if outlook.series.metric == Metric::ReadyRatio {
        "ratio"
    } else {
        "vcpus"
    };
    let (name, scope) = (outlook.series.metric.name(), outlook.series.subject.key());
    let observed = json!({
        "metric": name, "scope": scope, "window_s": (outlook.present_length() / SECOND).max(1),
        "value": round(outlook.present()), "threshold": round(finding.limit), "unit": unit,
        "finding_id": finding.id, "sql": observed_sql(outlook),
    });
    let made_at = rfc3339(outlook.made_at);
    let forecast_sql = format!(
        "SELECT ts, p10, p50, p90, model FROM forecasts WHERE subject = '{}' AND metric = '{name}' AND made_at = '{made_at}' ORDER BY ts",
        quote(&scope),
    );
    let length = outlook.series.step * Micros::try_from(outlook.prediction.p90.len()).unwrap_or(0);
    let forecast = json!({
        "metric": format!("{name} forecast p90, maximum"), "scope": scope, "window_s": (length / SECOND).max(1),
        "value": round(outlook.peak()), "threshold": round(finding.limit), "unit": unit,
        "finding_id": finding.id, "sql": forecast_sql,
    });
    json!([observed, forecast])
}

/// The statement that gives the present value again.
fn observed_sql(outlook: &Outlook) -> String {
    // A window counts for the bin of its middle, and `ts` is its end.
    let end = outlook.series.end + outlook.series.window / 2;
    let (from, to) = (rfc3339(end - outlook.present_length()), rfc3339(end));
    let (table, column, name) = match &outlook.series.subject {
        Subject::Vm(vm) => ("vms", "vm_id", &vm.id),
        Subject::Host(host) => ("hosts", "host", &host.name),
    };
    let value = match (table, outlook.series.metric) {
        ("vms", Metric::DemandVcpus) => "sum(run_ns + ready_ns) / CAST(sum(window_ns) AS DOUBLE)",
        ("vms", Metric::ReadyRatio) => "sum(ready_ns) / CAST(sum(window_ns * vcpus) AS DOUBLE)",
        (_, Metric::DemandVcpus) => {
            "sum(coalesce(busy_ns, vm_run_ns) + vm_ready_ns) / CAST(sum(window_ns) AS DOUBLE)"
        }
        (_, Metric::ReadyRatio) => "sum(vm_ready_ns) / CAST(sum(window_ns * vcpus) AS DOUBLE)",
    };
    let metric = outlook.series.metric.name();
    format!(
        "SELECT {value} AS {metric}, count(*) AS windows FROM {table} WHERE {column} = '{}' AND ts >= '{from}' AND ts < '{to}'",
        quote(name)
    )
}

fn forecast(finding: &Finding) -> Value {
    let (outlook, p) = (&finding.outlook, &finding.outlook.prediction);
    let steps = p.p50.len();
    let stride = steps.div_ceil(MAX_POINTS).max(1);
    let points: Vec<Value> = (0..steps)
        .rev()
        .step_by(stride)
        .map(|i| json!({"t": rfc3339(outlook.at(i)), "p10": round(p.p10[i]), "p50": round(p.p50[i]), "p90": round(p.p90[i])}))
        .collect();
    let mut fields = Map::new();
    fields.insert("metric".into(), json!(outlook.series.metric.name()));
    let length = outlook.series.step * Micros::try_from(steps).unwrap_or(0);
    fields.insert("horizon_s".into(), json!(length / SECOND));
    fields.insert("model".into(), json!(p.model));
    fields.insert("p_breach".into(), json!(round(finding.p_breach)));
    fields.insert("points".into(), points.into_iter().rev().collect());
    // Unavailable is left out, never 0.
    for (key, value) in [
        ("skill", outlook.selection.skill),
        ("coverage_p90", outlook.selection.coverage_90),
    ] {
        fields.extend(value.map(|v| (key.into(), json!(round(v)))));
    }
    fields.extend(
        finding
            .breach_at
            .map(|at| ("breach_at".into(), json!(rfc3339(at)))),
    );
    Value::Object(fields)
}

fn state(state: &HostState, config: &GateConfig) -> Value {
    json!({
        "host_load": round(state.load),
        "waiting_vcpus": round(state.waiting),
        "ready_pct_p95": round(state.ready_pct),
        "density_margin": round(config.limits.host_demand - state.load),
    })
}

fn blast_radius(plan: &Plan) -> Value {
    match plan.kind {
        // Whether the guest takes a vCPU while it runs is not known here: the
        // worse case is stated.
        Kind::ScaleUp => json!({"vms": 1, "hosts": 1, "reboot": true}),
        Kind::Migrate => json!({"vms": 1, "hosts": 2, "reboot": false}),
        Kind::Capacity => json!({"vms": 0, "hosts": 1}),
    }
}

fn whatif(plan: &Plan, outlooks: &[Outlook]) -> Value {
    let worst = hosts(outlooks).max_by(|a, b| {
        a.threads
            .cmp(&b.threads)
            .then(host_peak(a, outlooks).total_cmp(&host_peak(b, outlooks)))
    });
    let envelope = |state: &HostState| {
        let mut envelope = json!({"lambda_n1": round(state.lambda_n1)});
        if let (Some(worst), Some(fields)) = (worst, envelope.as_object_mut()) {
            fields.insert("worst_failure".into(), json!(worst.name));
        }
        envelope
    };
    json!({"verdict": "unknown", "envelope_before": envelope(&plan.before), "envelope_after": envelope(&plan.after), "violations": []})
}

fn preconditions(plan: &Plan) -> Value {
    let host = &plan.finding.host.name;
    match &plan.change {
        Change::Vcpus { from, .. } => {
            json!([{"check": "vm.host", "expect": host}, {"check": "vm.vcpus", "expect": from}])
        }
        Change::Move { to } => json!([
            {"check": "vm.host", "expect": host},
            {"check": "vm.migratable", "expect": true},
            {"check": format!("host.cordoned:{}", to.name), "expect": false},
            {"check": format!("active_migrations:{host}"), "expect": 0},
        ]),
        Change::Threads { from, .. } => json!([{"check": "host.threads", "expect": from}]),
    }
}

fn reversal(plan: &Plan) -> Value {
    match &plan.change {
        Change::Vcpus { from, to } => json!({
            "possible": true, "kind": "scale_down", "change": {"vcpus": {"from": to, "to": from}},
            "deadline_s": 3600, "loses": "a restart where the guest cannot give vCPUs back",
        }),
        Change::Move { to } => json!({
            "possible": true, "kind": "migrate", "change": {"from_host": to.name, "to_host": plan.finding.host.name},
            "deadline_s": 3600, "loses": "another transfer of the guest's memory",
        }),
        Change::Threads { .. } => json!({"possible": false, "loses": "bought capacity"}),
    }
}

fn verify(finding: &Finding) -> Value {
    let metric = finding.outlook.series.metric.name();
    json!({
        "metric": format!("{metric}{{subject={}}}", finding.outlook.series.subject.key()),
        "settle_s": 120, "window_s": 900,
        "success_if": format!("p95 <= {}", round(finding.limit)),
    })
}

/// A host name as one path segment of a URI reference.
fn segment(text: &str) -> String {
    let keep = |c: char| {
        if c.is_ascii_alphanumeric() || "-._".contains(c) {
            c
        } else {
            '_'
        }
    };
    text.chars().map(keep).collect()
}

fn quote(text: &str) -> String {
    text.replace('\'', "''")
}

fn shorten(text: &str) -> String {
    text.chars().take(MAX_REASON).collect()
}

fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
