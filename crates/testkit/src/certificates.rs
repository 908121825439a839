//! The cluster's certificates: one authority, the apiserver, the kubelet, the apiserver as the kubelet's client, and
//! the key that signs service account tokens. They live as long as the cluster and are never reused.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use crate::{Error, Result};

/// A certificate and its key, as files in PEM.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// The certificate.
    pub(crate) certificate: PathBuf,
    /// The private key.
    pub(crate) key: PathBuf,
}

/// Signs the cluster's certificates and writes them to a directory.
pub(crate) struct Authority {
    directory: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

// === impl Authority ===

impl Authority {
    /// Makes an authority and writes its certificate.
    pub(crate) fn create(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
        let mut parameters = CertificateParams::new(Vec::new()).map_err(refused)?;
        parameters
            .distinguished_name
            .push(DnType::CommonName, "flowctl local cluster");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate().map_err(refused)?);
        let authority = Self {
            directory: directory.to_owned(),
            issuer: issuer.map_err(refused)?,
        };
        write(&authority.certificate_file(), &authority.certificate())?;
        Ok(authority)
    }

    /// Its certificate in PEM.
    pub(crate) fn certificate(&self) -> String {
        self.issuer.pem()
    }

    /// The file of its certificate.
    pub(crate) fn certificate_file(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// A certificate for a server with these names and addresses.
    pub(crate) fn server(&self, name: &str, names: &[&str], addresses: &[Ipv4Addr]) -> Result<Pair> {
        let names = names.iter().map(ToString::to_string);
        let subjects: Vec<String> = names.chain(addresses.iter().map(ToString::to_string)).collect();
        self.sign(name, name, None, subjects, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A certificate for a client: its user name and group, as Kubernetes reads them.
    pub(crate) fn client(&self, file: &str, user: &str, group: &str) -> Result<Pair> {
        self.sign(file, user, Some(group), Vec::new(), ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A key pair that signs service account tokens; the second file holds the public half.
    pub(crate) fn token_key(&self) -> Result<Pair> {
        let key = KeyPair::generate().map_err(refused)?;
        let pair = Pair {
            certificate: self.directory.join("tokens.pub"),
            key: self.directory.join("tokens.key"),
        };
        write(&pair.certificate, &key.public_key_pem())?;
        write(&pair.key, &key.serialize_pem())?;
        Ok(pair)
    }

    fn sign(
        &self,
        file: &str,
        common_name: &str,
        organization: Option<&str>,
        subjects: Vec<String>,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Pair> {
        let mut parameters = CertificateParams::new(subjects).map_err(refused)?;
        parameters.distinguished_name.push(DnType::CommonName, common_name);
        if let Some(organization) = organization {
            parameters
                .distinguished_name
                .push(DnType::OrganizationName, organization);
        }
        parameters.extended_key_usages = vec![usage];
        let key = KeyPair::generate().map_err(refused)?;
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(refused)?;
        let pair = Pair {
            certificate: self.directory.join(format!("{file}.crt")),
            key: self.directory.join(format!("{file}.key")),
        };
        write(&pair.certificate, &certificate.pem())?;
        write(&pair.key, &key.serialize_pem())?;
        Ok(pair)
    }
}

fn refused(error: rcgen::Error) -> Error {
    Error::impossible(format!("cannot make the cluster's certificates: {error}"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::file("write", path))
}
