//! Generates the clients from the protos of the checkout, without those of the REST face, which only gateways call.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

const PROTOS: &str = "../../protos";
const THIRD_PARTY: &str = "../../protos/third_party";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={PROTOS}");
    let mut files = Vec::new();
    collect(&Path::new(PROTOS).join("tickets"), &mut files)?;
    let descriptors = protox::compile(files, [PROTOS, THIRD_PARTY])?;
    tonic_prost_build::configure().build_server(false).compile_fds(descriptors)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("rest") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            files.push(path);
        }
    }
    Ok(())
}
