//! Folders for tests whose subject is not the disk.

use std::path::Path;

use tempfile::TempDir;

/// Where Linux offers a file system in memory.
const MEMORY: &str = "/dev/shm";
/// The room that it must have for tests to use it, in bytes; a container may have next to none.
const ROOM: u64 = 1 << 30;

/// A new folder that ends with its handle: in memory where there is room for it, else where temporary files go.
///
/// A database in it commits at once, however busy other programs keep the disk; that its files are read and written like
/// any other is all that a test of ours may rely on.
///
/// # Panics
/// If no folder can be made.
pub fn quick() -> TempDir {
    let prefix = "doorward-test-";
    has_room(Path::new(MEMORY))
        .then(|| TempDir::with_prefix_in(prefix, MEMORY).ok())
        .flatten()
        .unwrap_or_else(|| TempDir::with_prefix(prefix).unwrap())
}

fn has_room(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).is_ok_and(|about| about.f_bavail.saturating_mul(about.f_frsize) >= ROOM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_new_writable_and_gone_with_its_handle() {
        let (one, other) = (quick(), quick());
        assert_ne!(one.path(), other.path());
        std::fs::write(one.path().join("file"), "x").unwrap();
        let path = one.path().to_owned();
        drop(one);
        assert!(!path.exists() && other.path().exists());
        assert!(!has_room(Path::new("/nowhere")));
    }
}
