//! The agent's own binary: without capabilities it goes on finding guests,
//! registering their threads and shipping their rows.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use headroom_core::batch::{Batch, ColumnData};
use headroom_proto::convert::from_wire;
use prost::Message as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::guest::Guest;
use crate::server::{Server, Shared};
use headroom_tests::require::{Need, have};

struct Agent(Child);

impl Agent {
    fn start(collector: SocketAddr, data_dir: &Path) -> Self {
        let config = data_dir.join("headroom.toml");
        let labels = data_dir.join("labels.toml");
        let rules = "[defaults]\nregion = \"eu\"\n[[vm]]\nglob = \"*\"\ntenant = \"acme\"\nproject = \"shop\"\nvm_type = \"tiny\"\n";
        std::fs::write(&labels, rules).expect("labels");
        let text = format!(
            "[agent]\ncollector = \"{collector}\"\ninterval = \"1s\"\ndata_dir = {data_dir:?}\nhost = \"here\"\nlabels = {labels:?}\n"
        );
        std::fs::write(&config, text).expect("config");
        let mut command = Command::new(env!("CARGO_BIN_EXE_headroom-agent"));
        command.arg("--config").arg(config).stdin(Stdio::null());
        Self(command.spawn().expect("agent"))
    }

    fn status(&self) -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).expect("tasks");
        tasks
            .flatten()
            .filter_map(|t| std::fs::read_to_string(t.path().join("status")).ok())
            .collect()
    }

    fn rss_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("status");
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("number")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn batches(store: &Shared) -> Vec<Batch> {
    let store = store.lock().expect("store");
    store
        .batches
        .values()
        .map(|wire| {
            from_wire(wire)
                .expect("a batch that fits the catalogue")
                .batch
        })
        .collect()
}

/// Values of a text column over all batches.
fn texts(batches: &[Batch], table: &str, column: &str) -> Vec<String> {
    let chunks = batches
        .iter()
        .flat_map(|b| &b.chunks)
        .filter(|c| c.table.name == table);
    let values = chunks.filter_map(|c| match c.columns.get(c.table.position(column)?)? {
        ColumnData::Text(values) => Some(values.iter().flatten().cloned()),
        _ => None,
    });
    values.flatten().collect()
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let wait = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait)
        .await
        .unwrap_or_else(|_| panic!("waited 60 s: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn works_without_capabilities() {
    if !have("works_without_capabilities", &[Need::Kvm]) {
        return;
    }
    let store = Shared::default();
    let server = Server::start(&store, SocketAddr::from(([127, 0, 0, 1], 0))).await;
    let dir = tempfile::tempdir().expect("tempdir");
    let mut agent = Agent::start(server.address, dir.path());
    until("first batch", || !batches(&store).is_empty()).await;
    for status in agent.status() {
        let zero = |set: &str| status.contains(&format!("{set}:\t0000000000000000"));
        assert!(
            zero("CapEff") && zero("CapPrm") && zero("CapInh") && zero("CapAmb"),
            "{status}"
        );
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    }
    // After the drop: new VMs are found, their threads get slots.
    let guests: Vec<Guest> = (0..4)
        .map(|n| Guest::start(&format!("late-{n}"), 1))
        .collect();
    let names = || texts(&batches(&store), "vcpus", "vm_name");
    until("rows of all guests", || {
        (0..4).all(|n| names().contains(&format!("late-{n}")))
    })
    .await;
    let source = texts(&batches(&store), "hosts", "source")
        .pop()
        .expect("host row");
    println!("{source}, resident {} KiB with 4 VMs", agent.rss_kib());
    let all = batches(&store);
    let sources = texts(&all, "vcpus", "source");
    assert!(sources.iter().all(|s| *s == source), "{sources:?}");
    wire_size(&store);
    who_they_are(&all);
    drop(guests);
    let stopped = || {
        texts(&batches(&store), "events", "kind")
            .iter()
            .filter(|k| *k == "vm_stopped")
            .count()
            >= 4
    };
    until("the guests' end noticed", stopped).await;
    // SIGTERM drains: the last, partial window arrives before the exit.
    let before = store.lock().expect("store").order.len();
    kill_process(Pid::from_child(&agent.0), Signal::TERM).expect("kill");
    assert!(agent.0.wait().expect("wait").success());
    let order = store.lock().expect("store").order.clone();
    assert!(order.len() > before);
    assert!(
        order
            .iter()
            .enumerate()
            .all(|(i, (_, seq))| *seq == i as u64 + 1),
        "{order:?}"
    );
    windows_end_at_whole_seconds(&batches(&store));
    server.kill().await;
}

/// Rows A16 and A17: what was there before the capabilities went still is.
fn who_they_are(batches: &[Batch]) {
    let all = |table, column| texts(batches, table, column);
    for column in ["tenant", "project", "vm_type"] {
        let (vms, inventory) = (all("vms", column), all("inventory", column));
        assert_eq!(vms.len(), all("vms", "vm_id").len(), "{column}");
        assert!(inventory.len() >= 4, "{column}: {inventory:?}");
    }
    assert!(all("vms", "tenant").iter().all(|t| t == "acme"));
    assert!(all("inventory", "region").iter().all(|r| r == "eu"));
    let known = all("inventory", "vm_id");
    let measured = all("vcpus", "vm_id");
    assert!(
        measured.iter().all(|id| known.contains(id)),
        "{measured:?} {known:?}"
    );
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").expect("online");
    let pinning = all("inventory", "pinning");
    println!("pinning {pinning:?}, online {online}");
    assert!(pinning.len() >= 4);
    assert!(!all("topology", "generation").is_empty());
}

/// For the comment at `agent.buffer`.
fn wire_size(store: &Shared) {
    let store = store.lock().expect("store");
    let last = store.batches.values().next_back().expect("a batch");
    println!("{} B on the wire for a window of 4 VMs", last.encoded_len());
}

/// All but the last, which ends with the process.
fn windows_end_at_whole_seconds(batches: &[Batch]) {
    let hosts = batches
        .iter()
        .flat_map(|b| &b.chunks)
        .filter(|c| c.table.name == "hosts");
    let ends: Vec<i64> = hosts
        .filter_map(|c| match &c.columns[0] {
            ColumnData::Int(values) => Some(values.iter().flatten().copied().collect::<Vec<_>>()),
            _ => None,
        })
        .flatten()
        .collect();
    let whole = &ends[..ends.len() - 1];
    assert!(whole.iter().all(|ts| ts % 1_000_000 == 0), "{ends:?}");
    assert!(
        whole.iter().zip(&whole[1..]).all(|(a, b)| a < b),
        "{ends:?}"
    );
}

#[test]
fn configuration_errors_exit_with_2_and_name_the_key() {
    let dir = tempfile::tempdir().expect("tempdir");
    let config = dir.path().join("bad.toml");
    for (text, key) in [
        ("[agent]\ninterval = \"0s\"\n", "agent.interval"),
        ("[agent]\nslot = 1\n", "slot"),
        ("[agent", "bad.toml"),
    ] {
        std::fs::write(&config, text).expect("config");
        let output = Command::new(env!("CARGO_BIN_EXE_headroom-agent"))
            .arg("--config")
            .arg(&config)
            .output()
            .expect("agent");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(key), "{stderr}");
    }
}
