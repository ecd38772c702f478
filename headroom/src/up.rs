//! `headroom up`: agent, collector and forecaster as children of one process
//! that restarts them, serves the page and receives the webhooks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use headroom_core::units::parse_duration;

use crate::config::{self, Invalid};
use crate::output::say;
use supervise::Service;

mod page;
mod receiver;
mod summary;
mod supervise;

/// From the collector's start to its first answer: replaying a full write-ahead
/// log of several segments included.
const COLLECTOR_LIMIT: Duration = Duration::from_secs(60);

/// Flags of `headroom up`.
#[derive(Args, Debug)]
pub struct UpArgs {
    /// Directory of everything that is kept [default: /var/lib/headroom]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Stops by itself after this time and prints a summary
    #[arg(long = "for", value_parser = crate::duration)]
    time: Option<Duration>,
    /// Configuration file
    #[arg(long)]
    config: Option<PathBuf>,
    /// Address of the page, loopback only [default: 127.0.0.1:8080]
    #[arg(long)]
    listen: Option<String>,
    /// Length of a window
    #[arg(long)]
    interval: Option<String>,
}

/// Runs everything until Ctrl-C, SIGTERM or the end of `--for`.
///
/// # Errors
/// A configuration or directory that can't be used, a port that is taken.
pub async fn run(args: UpArgs) -> anyhow::Result<()> {
    let started = Instant::now();
    let (mut file, data_dir) = settings(&args)?;
    let _lock = lock(&data_dir)?;
    let address = config::listen(&file.up.listen)?;
    let listener = tokio::net::TcpListener::bind(address).await.with_context(|| {
        format!("serve the page on {address}; another program has the port: choose one with --listen 127.0.0.1:PORT")
    })?;
    let page_at = listener.local_addr()?;
    if file.forecaster.webhook.url.is_empty() {
        file.forecaster.webhook.url = format!("http://{page_at}/hooks/recommendations");
        file.forecaster.webhook.allow.push("127.0.0.0/8".into());
    }

    let run_file = data_dir.join("run.toml");
    let collector = start_collector(&mut file, &data_dir, &run_file).await?;
    let agent = Service::start("agent", &run_file)?;
    let forecaster = Service::start("forecaster", &run_file)?;
    let page = tokio::spawn(page::serve(listener, page::State::new(&data_dir)));
    greet(started, page_at, &file, &data_dir)?;

    tokio::select! {
        () = crate::interrupted() => {}
        () = sleep_for(args.time) => {}
        r = page => r.context("serve the page")??,
    }
    say("stopping");
    agent.stop().await;
    if args.time.is_some() {
        summary::print(&data_dir).await;
    }
    forecaster.stop().await;
    collector.stop().await;
    Ok(())
}

/// Where everything is, with a question to begin with.
fn greet(
    started: Instant,
    page_at: std::net::SocketAddr,
    file: &config::File,
    data_dir: &Path,
) -> anyhow::Result<()> {
    let seconds = started.elapsed().as_secs_f64();
    let (dir, exe) = (data_dir.display(), std::env::current_exe()?);
    say(&format!("headroom is up after {seconds:.1} s"));
    say(&format!("  page        http://{page_at}/"));
    say(&format!("  collector   {} (gRPC)", file.collector.listen));
    if !file.collector.pg_listen.is_empty() {
        say(&format!("  psql        {}", psql(file, data_dir)));
    }
    say(&format!("  data        {dir}"));
    say(&format!(
        "  ask         {} sql --data-dir {dir} \"SELECT vm_name, ready_ratio FROM vms ORDER BY ts DESC LIMIT 10\"",
        exe.display()
    ));
    Ok(())
}

/// The command line that opens the PostgreSQL port.
fn psql(file: &config::File, data_dir: &Path) -> String {
    let collector = &file.collector;
    let (host, port) = collector
        .pg_listen
        .rsplit_once(':')
        .unwrap_or((&collector.pg_listen, ""));
    let host = host.trim_matches(['[', ']']);
    let made = data_dir.join("pg.password");
    let password = if collector.pg_password_file.as_os_str().is_empty() {
        &made
    } else {
        &collector.pg_password_file
    };
    format!(
        "PGPASSWORD=$(cat {}) psql -h {host} -p {port} -U headroom",
        password.display()
    )
}

async fn sleep_for(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

/// The file with the flags over it, every directory the same.
fn settings(args: &UpArgs) -> anyhow::Result<(config::File, PathBuf)> {
    let mut file = config::load(args.config.as_deref())?;
    if let Some(dir) = &args.data_dir {
        file.up.data_dir = dir.to_str().context("--data-dir is not UTF-8")?.to_owned();
    }
    if let Some(listen) = &args.listen {
        file.up.listen.clone_from(listen);
    }
    if let Some(interval) = &args.interval {
        parse_duration(interval).map_err(|e| Invalid(format!("--interval: {e}")))?;
        file.agent.interval.clone_from(interval);
    }
    let data_dir = PathBuf::from(&file.up.data_dir);
    fs::create_dir_all(&data_dir).with_context(|| {
        format!(
            "create {}; choose another with --data-dir",
            data_dir.display()
        )
    })?;
    let data_dir = fs::canonicalize(&data_dir)?;
    data_dir
        .to_str()
        .context("the data directory's path is not UTF-8")?
        .clone_into(&mut file.up.data_dir);
    file.agent.data_dir.clone_from(&data_dir);
    file.collector.data_dir.clone_from(&data_dir);
    file.forecaster.data_dir.clone_from(&data_dir);
    Ok((file, data_dir))
}

/// Starts the collector, learns its real address and tells it to the others.
async fn start_collector(
    file: &mut config::File,
    data_dir: &Path,
    run_file: &Path,
) -> anyhow::Result<Service> {
    let endpoint = data_dir.join("endpoint");
    // Written before the other one.
    let pg_endpoint = data_dir.join("endpoint.pg");
    // Those of a process that was killed must not be taken for ours.
    let _ = fs::remove_file(&endpoint);
    let _ = fs::remove_file(&pg_endpoint);
    write(file, run_file)?;
    let mut collector = Service::start("collector", run_file)?;
    let end = Instant::now() + COLLECTOR_LIMIT;
    let address = loop {
        if let Ok(address) = fs::read_to_string(&endpoint) {
            break address.trim().to_owned();
        }
        if let Some(status) = collector.first_exit() {
            bail!("the collector did not start ({status}); its reason stands above");
        }
        if Instant::now() > end {
            collector.stop().await;
            bail!("the collector answers nothing after {COLLECTOR_LIMIT:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    file.collector.listen.clone_from(&address);
    if let Ok(pg) = fs::read_to_string(&pg_endpoint) {
        pg.trim().clone_into(&mut file.collector.pg_listen);
    }
    file.agent.collector.clone_from(&address);
    file.forecaster.collector = address;
    // A restarted collector keeps the address that the others know.
    write(file, run_file)?;
    Ok(collector)
}

fn write(file: &config::File, to: &Path) -> anyhow::Result<()> {
    let tmp = to.with_extension("tmp");
    fs::write(&tmp, toml::to_string(file)?).with_context(|| format!("write {}", tmp.display()))?;
    fs::rename(&tmp, to).with_context(|| format!("write {}", to.display()))
}

/// Held until the process ends, so that two never share a directory.
fn lock(data_dir: &Path) -> anyhow::Result<File> {
    use std::io::Write as _;
    let path = data_dir.join("up.lock");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)?;
    if rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err() {
        let pid = fs::read_to_string(&path).unwrap_or_default();
        bail!(
            "{} is in use by headroom with pid {}; stop that one or choose another --data-dir",
            data_dir.display(),
            pid.trim()
        );
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}
