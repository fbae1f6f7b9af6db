//! Prints the CRD. `make generate` writes it to crds/kafkaconsumergroups.yaml.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    print!("{}", crds::crd::yaml()?);
    Ok(())
}
