//! Garbage, a full disk, a directory in use: clear errors, nothing lost.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use headroom_tests::guests::Guests;
use headroom_tests::require::{Need, have};
use headroom_tests::up::{self, Up};
use headroom_tests::{headroom, output, wait_for};

fn count(up: &Up) -> anyhow::Result<i64> {
    Ok(up.sql("SELECT count(*) AS n FROM hosts")?[0]["n"]
        .as_i64()
        .unwrap_or_default())
}

#[test]
fn garbage_on_the_port_and_a_second_up_do_no_harm() {
    if !have("garbage_on_the_port", &[Need::Bpf]) {
        return;
    }
    let _cpus = super::super::cpus();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let up = Up::start(&data, "[agent]\ninterval = \"1s\"\n", &[]).unwrap();
    let endpoint = std::fs::read_to_string(data.join("endpoint")).unwrap();
    let mut open = Vec::new();
    for n in 0..200u32 {
        let mut stream = TcpStream::connect(endpoint.trim()).unwrap();
        let noise: Vec<u8> = (0..4096u32)
            .map(|i| (i.wrapping_mul(2_654_435_761).wrapping_add(n) >> 13) as u8)
            .collect();
        // Every second one looks like HTTP/2 first.
        if n % 2 == 0 {
            let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        }
        let _ = stream.write_all(&noise);
        open.push(stream);
    }
    let collector = up.service("collector").unwrap();
    let before = wait_for("rows", Duration::from_secs(20), || count(&up)).unwrap();
    wait_for(
        "rows beside 200 noisy connections",
        Duration::from_secs(20),
        || {
            anyhow::ensure!(count(&up)? > before + 2, "no new rows");
            Ok(())
        },
    )
    .unwrap();
    assert_eq!(
        up.service("collector").unwrap(),
        collector,
        "the collector never ended"
    );
    drop(open);

    let second = Command::new(headroom())
        .args(["up", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(&data)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(1), "{said}");
    assert!(said.contains("is in use by headroom with pid"), "{said}");
    assert!(up.stop().unwrap().success());

    let lines = up::sql(&data, "SELECT count(*) AS n FROM hosts").unwrap();
    assert!(lines[0]["n"].as_i64().unwrap() > before);
}

#[test]
fn an_empty_or_absent_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for place in [dir.path().to_owned(), dir.path().join("nothing")] {
        let asked = Command::new(headroom())
            .args(["sql", "--data-dir"])
            .arg(&place)
            .arg("SELECT 1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&asked.stderr);
        assert_eq!(asked.status.code(), Some(1), "{said}");
        assert!(
            said.contains(place.to_str().unwrap()) && said.contains("headroom up"),
            "{said}"
        );
    }
}

/// A file system of its own; unmounted on drop.
struct Small(PathBuf);

impl Small {
    fn mount(dir: &Path) -> anyhow::Result<Self> {
        let (image, place) = (dir.join("image"), dir.join("small"));
        std::fs::File::create(&image)?.set_len(24 << 20)?;
        std::fs::create_dir(&place)?;
        output(
            Command::new("mkfs.ext4")
                .args(["-q", "-m", "0", "-O", "^has_journal"])
                .arg(&image),
        )?;
        output(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&place),
        )?;
        Ok(Self(place))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Writes until nothing goes any more; gives the file that took the space.
fn fill(place: &Path) -> PathBuf {
    let ballast = place.join("ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    for block in [64 << 10, 512] {
        while file.write_all(&vec![0xa5u8; block]).is_ok() {}
    }
    ballast
}

/// Why the collector refuses writes, as the page says it.
fn refusing(up: &Up) -> anyhow::Result<String> {
    let mut page = TcpStream::connect(up.page.trim_start_matches("http://"))?;
    page.write_all(b"GET /api/overview HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    page.read_to_string(&mut text)?;
    let reason = text.split("\"refusing\":\"").nth(1);
    let reason = reason.and_then(|t| t.split('"').next()).unwrap_or_default();
    anyhow::ensure!(!reason.is_empty(), "not refusing yet");
    Ok(reason.to_owned())
}

#[test]
fn a_full_disk_refuses_and_recovers_without_loss() {
    if !have("a_full_disk", &[Need::Bpf, Need::Kvm]) {
        return;
    }
    let _cpus = super::super::cpus();
    let dir = tempfile::tempdir().unwrap();
    let small = match Small::mount(dir.path()) {
        Ok(small) => small,
        Err(error) => {
            let _ = writeln!(
                std::io::stderr(),
                "skip: a_full_disk: no loop file system: {error:#}"
            );
            return;
        }
    };
    let data = small.0.join("data");
    let config =
        "[agent]\ninterval = \"1s\"\n[collector]\nflush = \"3s\"\nsegment_size = \"1 MiB\"\n";
    let up = Up::start(&data, config, &[]).unwrap();
    let guests = Guests::start(&[
        "--count", "4", "--load", "20", "--for", "300s", "--weight", "100",
    ])
    .unwrap();
    wait_for("rows", Duration::from_secs(30), || {
        anyhow::ensure!(count(&up)? > 3, "no rows yet");
        Ok(())
    })
    .unwrap();

    let ballast = fill(&small.0);
    let collector = up.service("collector").unwrap();
    // Held full until writes are really refused and for a while after.
    let refused = wait_for("a refusal", Duration::from_secs(60), || refusing(&up)).unwrap();
    println!("refusing: {refused}");
    std::thread::sleep(Duration::from_secs(5));
    let before = count(&up).unwrap();
    assert_eq!(
        up.service("collector").unwrap(),
        collector,
        "a full disk ends no process"
    );
    std::fs::remove_file(&ballast).unwrap();
    wait_for("rows after space is back", Duration::from_secs(30), || {
        anyhow::ensure!(count(&up)? > before + 10, "no new rows");
        Ok(())
    })
    .unwrap();
    assert_eq!(up.service("collector").unwrap(), collector);
    drop(guests);
    assert!(up.stop().unwrap().success());
    let gaps = up::sql(
        &data,
        "SELECT count(*) AS rows, count(DISTINCT ts) AS windows, \
         sum(CASE WHEN abs(us - window_ns / 1000 - before) > 500000 THEN 1 ELSE 0 END) AS gaps \
         FROM (SELECT ts, cast(ts AS BIGINT) AS us, window_ns, lag(cast(ts AS BIGINT)) OVER (ORDER BY ts) AS before FROM hosts)",
    )
    .unwrap();
    println!("{}", gaps[0]);
    assert_eq!(gaps[0]["rows"], gaps[0]["windows"]);
    assert_eq!(
        gaps[0]["gaps"].as_i64(),
        Some(0),
        "the agent kept what was refused"
    );
}
