//! Families beside the scheduler's, on a real guest.

use std::net::UdpSocket;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::Duration;

use headroom_agent::sampler::Window;
use headroom_core::batch::{Chunk, ColumnData};

use crate::guest::Guest;
use crate::{by_schedstat, measure, probing};
use headroom_tests::require::{Need, have, lacks};

fn chunk<'a>(window: &'a Window, table: &str) -> &'a Chunk {
    let found = window.more.iter().find(|c| c.table.name == table);
    found.unwrap_or_else(|| panic!("no rows of {table}"))
}

fn ints(chunk: &Chunk, column: &str) -> Vec<Option<i64>> {
    match &chunk.columns[chunk.table.position(column).expect("column")] {
        ColumnData::Int(values) => values.clone(),
        other => panic!("{column}: {other:?}"),
    }
}

fn texts(chunk: &Chunk, column: &str) -> Vec<Option<String>> {
    match &chunk.columns[chunk.table.position(column).expect("column")] {
        ColumnData::Text(values) => values.clone(),
        other => panic!("{column}: {other:?}"),
    }
}

/// A process that spins; killed when dropped.
struct Spinner(Child);

impl Spinner {
    fn start() -> Self {
        let child = Command::new("sh")
            .args(["-c", "while :; do :; done"])
            .spawn();
        Self(child.expect("sh"))
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn memory_of_a_guest_and_tasks_of_its_host() {
    if !have("memory_of_a_guest_and_tasks_of_its_host", &[Need::Kvm]) {
        return;
    }
    let mut sampler = by_schedstat();
    let guest = Guest::start("families", 1);
    let spinner = Spinner::start();
    let window = measure(&mut sampler, || sleep(Duration::from_secs(2)));
    let numa = chunk(&window, "vm_numa");
    let (names, bytes) = (texts(numa, "vm_name"), ints(numa, "memory_bytes"));
    let at = names.iter().position(|n| n.as_deref() == Some("families"));
    let at = at.expect("row of the guest");
    println!("{:?} bytes by {:?}", bytes[at], texts(numa, "source")[at]);
    // QEMU's own memory is in it; the guest of 16 MiB has touched next to none.
    let resident = bytes[at].expect("bytes of a VM on a host with one node");
    assert!((1 << 20..1 << 30).contains(&resident), "{resident}");
    if ints(numa, "nodes")[at] == Some(1) {
        assert_eq!(ints(numa, "remote_bytes")[at], None);
    }
    let tasks = chunk(&window, "host_tasks");
    let (owners, ran) = (texts(tasks, "owner"), ints(tasks, "run_ns"));
    let told = owners.iter().flatten().zip(ran.iter().flatten());
    let told: Vec<(&String, &i64)> = told.collect();
    println!("{told:?}");
    assert!(told.iter().any(|(o, ns)| *o == "sh" && **ns > 100_000_000));
    assert_eq!(chunk(&window, "host_steal").rows(), 1);
    assert_eq!(chunk(&window, "host_numa").rows(), 1);
    drop((guest, spinner));
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    match Command::new("ip").args(arguments).output() {
        Ok(out) if out.status.success() => Ok(()),
        Ok(out) => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        Err(error) => Err(format!("ip: {error}")),
    }
}

/// QEMU's own tap, which its guest never reads. A guest without a driver uses
/// one queue, although the tap could have two.
#[test]
fn drops_of_a_guests_queue() {
    if !have("drops_of_a_guests_queue", &[Need::Kvm]) {
        return;
    }
    let Some(mut sampler) = probing() else { return };
    let tap = format!("hrg{}", std::process::id());
    let guest = Guest::start_with(
        "flooded",
        1,
        &format!(
            "-netdev tap,id=n,ifname={tap},script=no,downscript=no,queues=2 -device virtio-net-pci,netdev=n,mq=on,romfile="
        ),
    );
    let there = "198.18.78.2";
    let ready = ip(&["link", "set", "dev", &tap, "up"])
        .and_then(|()| ip(&["addr", "add", "198.18.78.1/30", "dev", &tap]))
        .and_then(|()| {
            let mac = "52:54:00:11:22:44";
            ip(&["neigh", "add", there, "lladdr", mac, "dev", &tap])
        });
    if let Err(reason) = ready {
        return lacks("net", reason);
    }
    let socket = UdpSocket::bind("198.18.78.1:0").expect("socket");
    let window = measure(&mut sampler, || {
        for _ in 0..5000 {
            // What finds no room is dropped, which no sender hears of.
            socket.send_to(&[0; 64], (there, 9)).expect("send");
        }
    });
    drop(guest);
    let nets = chunk(&window, "vm_nets");
    let rows: Vec<_> = ints(nets, "queue")
        .into_iter()
        .zip(ints(nets, "guest_rx_drops"))
        .zip(texts(nets, "vm_name"))
        .filter(|(_, name)| name.as_deref() == Some("flooded"))
        .map(|(row, _)| row)
        .collect();
    println!("{rows:?}");
    assert!(rows[0].0.is_none() && rows[0].1 > Some(1000), "{rows:?}");
    assert_eq!(texts(nets, "device")[0].as_deref(), Some(tap.as_str()));
    assert_eq!(rows[1..], [(Some(0), rows[0].1)], "{rows:?}");
}
