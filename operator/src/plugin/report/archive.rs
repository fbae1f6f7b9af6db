//! Stores the files of a report. In: names and texts. Out: a new zip file, or a new folder. Replaces nothing.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A file of a report: its path in it, and its text.
pub type File = (String, String);

/// Writes a zip file if the name ends so, otherwise a folder. Only the user may read it.
pub fn store(target: &Path, files: &[File]) -> io::Result<()> {
    match target.extension() {
        Some(extension) if extension.eq_ignore_ascii_case("zip") => zip_file(target, files),
        _ => folder(target, files),
    }
}

fn create(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn zip_file(target: &Path, files: &[File]) -> io::Result<()> {
    let mut zip = ZipWriter::new(create(target)?);
    // Not compressed: every reader knows it, and a report has a few MB at most.
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, text) in files {
        zip.start_file(name.as_str(), options)?;
        zip.write_all(text.as_bytes())?;
    }
    zip.finish()?;
    Ok(())
}

fn folder(target: &Path, files: &[File]) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.mode(0o700).create(target)?;
    for (name, text) in files {
        let path = target.join(name);
        if let Some(parent) = path.parent() {
            builder.recursive(true).create(parent)?;
        }
        create(&path)?.write_all(text.as_bytes())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn files() -> Vec<File> {
        vec![
            ("report.txt".into(), "a".into()),
            ("logs/w-0.log".into(), "line 1\nline 2\n".repeat(1_000)),
        ]
    }

    #[test]
    fn a_zip_file_has_all_files_and_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.zip");
        store(&path, &files()).unwrap();
        let mut archive = zip::ZipArchive::new(fs::File::open(&path).unwrap()).unwrap();
        for (name, text) in files() {
            let mut found = String::new();
            archive
                .by_name(&name)
                .unwrap()
                .read_to_string(&mut found)
                .unwrap();
            assert_eq!(found, text, "{name}");
        }
        let again = store(&path, &files()).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_folder_has_all_files_and_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report");
        store(&path, &files()).unwrap();
        for (name, text) in files() {
            assert_eq!(fs::read_to_string(path.join(&name)).unwrap(), text, "{name}");
        }
        assert!(store(&path, &files()).is_err());
    }
}
