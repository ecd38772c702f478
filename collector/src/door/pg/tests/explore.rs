#[tokio::test(flavor = "multi_thread")]
async fn explore() {
    let open = super::Open::start().await;
    std::fs::write(
        "/tmp/pg-explore",
        format!("{} {}\n", open.port, open.password),
    )
    .unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
}
