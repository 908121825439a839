//! Container images without a builder: one layer from a list of files, written as an OCI image layout in a tar
//! (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>), with `docker save`'s `manifest.json`
//! beside it for tools that know only that. The same files give the same bytes. It must not run a command.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// Who runs a program that does not need to be root; the number that distroless images use too.
pub const NON_ROOT: u32 = 65532;
/// `created`, everywhere: a build's time would make every build another image.
const CREATED: &str = "1970-01-01T00:00:00Z";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// What an image is made of.
#[derive(Clone, Debug, Serialize)]
pub struct Image {
    /// Name and tag, as a pod spells it: `flowctl-operator:dev`.
    pub name: String,
    /// What is in it.
    pub files: Vec<ImageFile>,
    /// What runs.
    pub entrypoint: Vec<String>,
    /// Labels, by key.
    pub labels: BTreeMap<String, String>,
}

/// A file of an image.
#[derive(Clone, Debug, Serialize)]
pub struct ImageFile {
    /// Where it comes from.
    pub source: PathBuf,
    /// Its absolute path in the image.
    pub path: String,
    /// Its permission bits: `0o755`.
    pub mode: u32,
}

/// An image that was written to a tar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Name and tag.
    pub name: String,
    /// The tar.
    pub path: PathBuf,
    /// The digest of its manifest: `sha256:…`. What containerd lists.
    pub digest: String,
    /// What it was made from, to see whether it is still that.
    inputs: String,
}

/// A blob of the layout.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

// === impl Image ===

impl Image {
    /// An image of one static program.
    pub fn of_program(name: impl Into<String>, program: &Path) -> Self {
        let file = program
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let path = format!("/{file}");
        Self {
            name: name.into(),
            files: vec![ImageFile {
                source: program.to_owned(),
                path: path.clone(),
                mode: 0o755,
            }],
            entrypoint: vec![path],
            labels: BTreeMap::new(),
        }
    }

    /// Writes the image to `<directory>/<name>.tar`, unless that holds it already.
    ///
    /// # Errors
    /// When a file cannot be read or the tar cannot be written.
    pub fn write(&self, directory: &Path) -> Result<Archive> {
        fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
        let stem = self.name.replace(['/', ':'], "-");
        let (path, record) = (
            directory.join(format!("{stem}.tar")),
            directory.join(format!("{stem}.json")),
        );
        let inputs = self.inputs()?;
        if let Some(archive) = read_record(&record)
            && archive.inputs == inputs
            && archive.path == path
            && path.is_file()
        {
            return Ok(archive);
        }
        let digest = self.write_tar(&path)?;
        let archive = Archive {
            name: self.name.clone(),
            path,
            digest,
            inputs,
        };
        let text = serde_json::to_string(&archive).map_err(|error| Error::io("write a record")(error.into()))?;
        fs::write(&record, text).map_err(Error::file("write", &record))?;
        Ok(archive)
    }

    /// What the image depends on, cheaply: everything that is said, and size and time of every file.
    fn inputs(&self) -> Result<String> {
        let mut inputs = serde_json::to_string(self).map_err(|error| Error::io("describe an image")(error.into()))?;
        for file in &self.files {
            let metadata = fs::metadata(&file.source).map_err(Error::file("read", &file.source))?;
            let modified = metadata
                .modified()
                .ok()
                .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            inputs.push_str(&format!(
                " {}/{}",
                metadata.len(),
                modified.unwrap_or_default().as_nanos()
            ));
        }
        Ok(inputs)
    }

    fn write_tar(&self, path: &Path) -> Result<String> {
        let layer = Blob::new(self.layer()?);
        let config = Blob::json(&self.config(&layer.digest))?;
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(CONFIG),
            "layers": [layer.descriptor(LAYER)],
        }))?;
        let mut reference = manifest.descriptor(MANIFEST);
        reference["annotations"] = json!({
            "io.containerd.image.name": self.full_name(),
            "org.opencontainers.image.ref.name": self.name.rsplit(':').next(),
        });
        let index = Blob::json(&json!({"schemaVersion": 2, "manifests": [reference]}))?;
        let layout = Blob::json(&json!({"imageLayoutVersion": "1.0.0"}))?;
        let docker = Blob::json(&json!([{
            "Config": config.path(),
            "RepoTags": [self.name],
            "Layers": [layer.path()],
        }]))?;
        let digest = manifest.digest.clone();

        // Written beside and renamed: a tar that was cut off would look like an image.
        let unfinished = path.with_extension("unfinished");
        let file = File::create(&unfinished).map_err(Error::file("create", &unfinished))?;
        let mut tar = tar::Builder::new(BufWriter::new(file));
        let written = [&config, &layer, &manifest]
            .into_iter()
            .map(|blob| (blob.path(), &blob.bytes))
            .chain([
                ("oci-layout".to_owned(), &layout.bytes),
                ("index.json".to_owned(), &index.bytes),
                ("manifest.json".to_owned(), &docker.bytes),
            ])
            .try_for_each(|(name, bytes)| append(&mut tar, &name, 0o644, bytes))
            .and_then(|()| tar.into_inner()?.flush());
        written.map_err(Error::file("write", &unfinished))?;
        fs::rename(&unfinished, path).map_err(Error::file("write", path))?;
        Ok(digest)
    }

    /// The only layer, as an uncompressed tar: it is read once, on this machine.
    fn layer(&self) -> Result<Vec<u8>> {
        let mut files: Vec<&ImageFile> = self.files.iter().collect();
        files.sort_by(|left, right| left.path.cmp(&right.path));
        let parents: BTreeSet<&Path> = files
            .iter()
            .flat_map(|file| Path::new(file.path.trim_start_matches('/')).ancestors().skip(1))
            .filter(|parent| !parent.as_os_str().is_empty())
            .collect();
        let mut tar = tar::Builder::new(Vec::new());
        for parent in parents {
            let mut header = header(0o755, 0);
            header.set_entry_type(tar::EntryType::Directory);
            let appended = tar.append_data(&mut header, parent, std::io::empty());
            appended.map_err(Error::io(format!("add {} to {}", parent.display(), self.name)))?;
        }
        for file in files {
            let bytes = fs::read(&file.source).map_err(Error::file("read", &file.source))?;
            let appended = append(&mut tar, file.path.trim_start_matches('/'), file.mode, &bytes);
            appended.map_err(Error::io(format!("add {} to {}", file.path, self.name)))?;
        }
        tar.into_inner().map_err(Error::io(format!("finish {}", self.name)))
    }

    fn config(&self, layer: &str) -> Value {
        json!({
            "created": CREATED,
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "User": format!("{NON_ROOT}:{NON_ROOT}"),
                "Entrypoint": self.entrypoint,
                "WorkingDir": "/",
                "Labels": self.labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [layer]},
            "history": [{"created": CREATED, "comment": "one layer from files"}],
        })
    }

    /// The name as containerd stores it; a short name means Docker Hub's library.
    fn full_name(&self) -> String {
        match self.name.split_once('/') {
            None => format!("docker.io/library/{}", self.name),
            Some((first, _)) if first.contains(['.', ':']) => self.name.clone(),
            Some(_) => format!("docker.io/{}", self.name),
        }
    }
}

// === impl Archive ===

impl Archive {
    /// Reads what is in an image tar of ours: its name and digest.
    ///
    /// # Errors
    /// When the file is no such tar.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::file("open", path))?;
        // Whatever is wrong inside (no tar, no index, no name), a person does the same about it.
        let Some((name, digest)) = reference(file) else {
            return Err(Error::impossible(format!(
                "{} is not an OCI image layout with a name: write it with `cargo xtask images`",
                path.display()
            )));
        };
        Ok(Self {
            name,
            path: path.to_owned(),
            digest,
            inputs: String::new(),
        })
    }
}

/// Name and digest of the first image of a layout.
fn reference(file: File) -> Option<(String, String)> {
    let mut tar = tar::Archive::new(file);
    let mut entries = tar.entries().ok()?.map_while(std::io::Result::ok);
    let index = entries.find(|entry| entry.path().is_ok_and(|name| name == Path::new("index.json")))?;
    let index: Value = serde_json::from_reader(index).ok()?;
    let reference = index.get("manifests")?.get(0)?;
    let name = reference
        .get("annotations")?
        .get("io.containerd.image.name")?
        .as_str()?;
    Some((name.to_owned(), reference.get("digest")?.as_str()?.to_owned()))
}

// === impl Blob ===

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        let digest: String = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            digest: format!("sha256:{digest}"),
            bytes,
        }
    }

    fn json(value: &Value) -> Result<Self> {
        let bytes = serde_json::to_vec(value).map_err(|error| Error::io("write JSON")(error.into()))?;
        Ok(Self::new(bytes))
    }

    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }

    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// A name for content: 16 hexadecimal digits.
pub(crate) fn short_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn read_record(path: &Path) -> Option<Archive> {
    serde_json::from_str(&fs::read_to_string(path).ok()?).ok()
}

fn append<W: Write>(tar: &mut tar::Builder<W>, name: &str, mode: u32, bytes: &[u8]) -> std::io::Result<()> {
    tar.append_data(&mut header(mode, bytes.len() as u64), name, bytes)
}

/// Owner, group and time are zero.
fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// This machine's architecture, as Go calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(directory: &Path) -> Image {
        let program = directory.join("program");
        fs::write(&program, b"content").expect("written");
        Image::of_program("things/program:dev", &program)
    }

    #[test]
    fn the_same_files_are_the_same_image_and_other_files_another() {
        let directory = tempfile::tempdir().expect("a directory");
        let (first, second) = (directory.path().join("first"), directory.path().join("second"));
        let image = image(directory.path());
        let one = image.write(&first).expect("written");
        let two = image.write(&second).expect("written");
        assert_eq!(fs::read(&one.path).expect("read"), fs::read(&two.path).expect("read"));
        assert_eq!(Archive::read(&one.path).expect("read").digest, one.digest);
        assert_eq!(
            Archive::read(&one.path).expect("read").name,
            "docker.io/things/program:dev"
        );

        let before = fs::metadata(&one.path)
            .and_then(|metadata| metadata.modified())
            .expect("a time");
        image.write(&first).expect("written");
        let after = fs::metadata(&one.path)
            .and_then(|metadata| metadata.modified())
            .expect("a time");
        assert_eq!(before, after, "nothing changed, so nothing is written");

        fs::write(&image.files[0].source, b"other content").expect("written");
        assert_ne!(image.write(&first).expect("written").digest, one.digest);
    }

    #[test]
    fn a_file_that_is_no_image_is_refused_with_a_remedy() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("x.tar");
        fs::write(&path, [0; 1024]).expect("written");
        assert!(
            Archive::read(&path)
                .expect_err("refused")
                .to_string()
                .contains("cargo xtask images")
        );
    }
}
