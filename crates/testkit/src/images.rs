//! The project's own images: static binaries, one each, tag `dev`. Cargo decides what has to be compiled; a tar is
//! written only when its binary changed.

use std::path::PathBuf;

use tokio::process::Command;

use crate::binaries::project_root;
use crate::image::{Archive, Image};
use crate::{Error, Result};

/// One of the project's programs that runs in a pod. The image, the package and the binary have the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectImage {
    /// The operator.
    Operator,
    /// The control plane, and the command line.
    Flowctl,
    /// Runs pipelines.
    Runner,
    /// The example processor.
    TtpProcessor,
    /// The example consumer.
    AnalyticsSink,
    /// Clients of a control plane, as they are in the field; for tests only.
    WireClients,
}

// === impl ProjectImage ===

impl ProjectImage {
    /// All of them that people use.
    pub const ALL: [Self; 5] = [
        Self::Operator,
        Self::Flowctl,
        Self::Runner,
        Self::TtpProcessor,
        Self::AnalyticsSink,
    ];

    /// Those and what tests run beside them: compiled at once, so that all are compiled with the same features.
    pub const IN_TESTS: [Self; 6] = [
        Self::Operator,
        Self::Flowctl,
        Self::Runner,
        Self::TtpProcessor,
        Self::AnalyticsSink,
        Self::WireClients,
    ];

    /// The name without a tag, and of the package and binary.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operator => "flowctl-operator",
            Self::Flowctl => "flowctl",
            Self::Runner => "flowctl-runner",
            Self::TtpProcessor => "ttp-processor",
            Self::AnalyticsSink => "analytics-sink",
            Self::WireClients => "wire-clients",
        }
    }

    /// Name and tag, as a pod spells it.
    pub fn reference(self) -> String {
        format!("{}:dev", self.name())
    }
}

/// Where the tars are.
pub fn directory() -> PathBuf {
    project_root().join("target/images")
}

/// Compiles these programs and writes their images. Cargo's progress goes to standard error.
///
/// # Errors
/// When a program does not compile, with the compiler's message on standard error.
pub async fn build(images: &[ProjectImage]) -> Result<Vec<Archive>> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let compiled = target_directory()?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(project_root())
        .args(["build", "--locked", "--profile", "image", "--target", &target])
        .arg("--target-dir")
        .arg(&compiled)
        .args(
            images
                .iter()
                .flat_map(|image| ["--package", image.name(), "--bin", image.name()]),
        )
        // A static-pie executable: it resolves names with glibc's own resolver, on an empty file system.
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    let status = command.status().await.map_err(Error::io("run cargo"))?;
    if !status.success() {
        return Err(Error::impossible(format!(
            "the images' programs do not compile ({status}): see above"
        )));
    }
    let write = |image: &ProjectImage| {
        let mut description = Image::of_program(image.reference(), &program(*image)?);
        let labels = [
            ("title", image.name()),
            ("version", env!("CARGO_PKG_VERSION")),
            ("licenses", "Apache-2.0"),
        ];
        for (key, value) in labels {
            description
                .labels
                .insert(format!("org.opencontainers.image.{key}"), value.to_owned());
        }
        description.write(&directory())
    };
    images.iter().map(write).collect()
}

/// The program in an image, once [`build`] has compiled it.
///
/// # Errors
/// When the working directory is gone.
pub fn program(image: ProjectImage) -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    Ok(target_directory()?.join(target).join("image").join(image.name()))
}

/// Absolute, since cargo runs in the project's root and a relative one was meant from here.
fn target_directory() -> Result<PathBuf> {
    match std::env::var_os("CARGO_TARGET_DIR").filter(|value| !value.is_empty()) {
        Some(own) => std::path::absolute(own).map_err(Error::io("find CARGO_TARGET_DIR")),
        None => Ok(project_root().join("target")),
    }
}
