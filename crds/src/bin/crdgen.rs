//! Writes every CRD to a file of its own in a folder. `make generate` runs it.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("usage: crdgen FOLDER")?;
    for crd in crds::crd::all() {
        let file = PathBuf::from(&folder).join(crds::crd::file_name(&crd));
        std::fs::write(file, crds::crd::yaml(&crd)?)?;
    }
    Ok(())
}
