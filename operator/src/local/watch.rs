//! Detects changes of the given files by their times and sizes, once a second: works on every file system and
//! needs no library. In: paths. Out: whether anything has changed since the last check.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::load::files;

type FileStamps = Vec<(PathBuf, Option<(SystemTime, u64)>)>;

pub struct Watch {
    paths: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    last: FileStamps,
}

impl Watch {
    /// `paths` as given with -f; `folders` contain one folder per Secret or ConfigMap.
    pub fn new(paths: &[PathBuf], folders: Vec<PathBuf>) -> Self {
        let mut watch = Self {
            paths: paths.to_vec(),
            folders,
            last: Vec::new(),
        };
        watch.last = watch.scan();
        watch
    }

    /// True once after each change.
    pub fn changed(&mut self) -> bool {
        let now = self.scan();
        let changed = now != self.last;
        self.last = now;
        changed
    }

    fn scan(&self) -> FileStamps {
        let mut stamps = FileStamps::new();
        for path in &self.paths {
            match files(path) {
                Ok(files) => stamps.extend(files.into_iter().map(stamp)),
                Err(_) => stamps.push((path.clone(), None)),
            }
        }
        for object in self.folders.iter().flat_map(|folder| entries(folder)) {
            stamps.extend(entries(&object).into_iter().map(stamp));
        }
        stamps
    }
}

fn stamp(path: PathBuf) -> (PathBuf, Option<(SystemTime, u64)>) {
    let stamp = path
        .metadata()
        .ok()
        .and_then(|data| Some((data.modified().ok()?, data.len())));
    (path, stamp)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| {
            entries
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .collect()
        })
        .unwrap_or_default();
    entries.sort();
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_new_and_removed_files_are_detected_once() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        std::fs::write(&file, "a").unwrap();
        let mut watch = Watch::new(&[dir.path().to_path_buf()], vec![secrets.path().to_path_buf()]);
        assert!(!watch.changed());
        std::fs::write(&file, "ab").unwrap();
        assert!(watch.changed());
        assert!(!watch.changed());
        std::fs::write(dir.path().join("b.yaml"), "b").unwrap();
        assert!(watch.changed());
        std::fs::create_dir(secrets.path().join("login")).unwrap();
        std::fs::write(secrets.path().join("login/password"), "x").unwrap();
        assert!(watch.changed());
        std::fs::remove_file(&file).unwrap();
        assert!(watch.changed());
        assert!(!watch.changed());
    }
}
