//! `cargo xtask images`: compiles the programs that run in pods and writes their images, without a builder.

use anyhow::Result;
use flowctl_testkit::images::{self, ProjectImage};

use crate::cluster;

/// Arguments of `cargo xtask images`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Which ones; all if none is named
    #[arg(value_parser = parse)]
    images: Vec<ProjectImage>,
    /// Load them into the running local cluster
    #[arg(long)]
    load: bool,
    /// With --load: the cluster of this context of your kubeconfig instead of the local one
    #[arg(long, value_name = "NAME", requires = "load")]
    context: Option<String>,
}

/// `cargo xtask images`.
///
/// # Errors
///
/// When something does not compile, or cannot be loaded.
pub async fn run(arguments: Arguments) -> Result<()> {
    // Asked before minutes are spent on compiling.
    let cluster = match arguments.load {
        true => Some(cluster::open(arguments.context.as_deref()).await?),
        false => None,
    };
    let images = if arguments.images.is_empty() {
        ProjectImage::ALL.to_vec()
    } else {
        arguments.images
    };
    let archives = images::build(&images).await?;
    for archive in &archives {
        println!("{:24} {}", archive.name, archive.path.display());
    }
    if let Some(cluster) = cluster {
        let paths: Vec<_> = archives.into_iter().map(|archive| archive.path).collect();
        cluster::load(&cluster, &paths).await?;
    }
    Ok(())
}

fn parse(name: &str) -> Result<ProjectImage, String> {
    let known = ProjectImage::ALL.into_iter().find(|image| image.name() == name);
    known.ok_or_else(|| {
        let names = ProjectImage::ALL.map(ProjectImage::name).join(", ");
        format!("no such image; there are {names}")
    })
}
