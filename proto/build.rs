//! Compiles the protocol without a protoc on the machine: protox is one in Rust.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=headroom");
    let files = protox::compile(["headroom/v1/headroom.proto"], ["."])?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
