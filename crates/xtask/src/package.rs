//! What users install: Debian's package, a tarball, and a list of everything that was compiled in. All of it is made
//! from one build, and tried afterwards.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cargo::{SELECTION, cargo, root, target_dir};
use crate::install;
use crate::step::{output, run, step};

/// Which build is packed. The one for trying this out is at hand where tests run; it has fault points compiled in.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Profile {
    Release,
    Dev,
}

impl Profile {
    /// Where cargo puts what it builds.
    fn folder(self) -> PathBuf {
        target_dir().join(match self {
            Profile::Release => "release",
            Profile::Dev => "debug",
        })
    }

    fn build(self) -> Result<()> {
        match self {
            Profile::Release => run(&mut cargo(&["build", "--release", "--locked", "--package", "cdc-audit"])),
            Profile::Dev => run(cargo(&["build", "--bin", "cdc-audit"]).args(SELECTION)),
        }
    }
}

/// What is being packed.
struct Release {
    profile: Profile,
    version: String,
    /// Where everything goes that a user may download.
    folder: PathBuf,
    /// What the packages are made of; `[package.metadata.deb]` of the program's manifest names these files.
    parts: PathBuf,
    /// When the last commit was made, in seconds: the same sources make the same files.
    time: String,
}

pub fn package(profile: Profile) -> Result<()> {
    step("install", install::for_packages)?;
    step("build", || profile.build())?;
    let release = Release::prepare(profile)?;
    step("parts", || release.parts())?;
    let sbom = step("list of components", || release.sbom())?;
    let deb = step("Debian package", || release.deb())?;
    let tarball = step("tarball", || release.tarball(&sbom))?;
    step("try the package", || try_out(&deb))?;
    release.sums(&[&deb, &tarball, &sbom])
}

/// Asks Debian's own tools, and installs the package into a folder that stands for a machine.
fn try_out(deb: &Path) -> Result<()> {
    run(Command::new("apt-get").args(["install", "--simulate", "-qq"]).arg(deb))?;
    run(Command::new("lintian").args(["--fail-on", "error", "--allow-root"]).arg(deb))?;
    run(install::as_root("sh").arg(root().join("deploy/debian/try")).arg(deb))
}

impl Release {
    /// Empties the folder, so that it never holds files of two builds.
    fn prepare(profile: Profile) -> Result<Release> {
        let folder = profile.folder().join("package");
        // Where the manifest says, whichever build is packed.
        let parts = target_dir().join("release/package/parts");
        for old in [&folder, &parts] {
            if old.exists() {
                fs::remove_dir_all(old).with_context(|| format!("cannot empty {}", old.display()))?;
            }
        }
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for name in ["bin", "man", "completions"] {
            fs::create_dir_all(parts.join(name)).with_context(|| format!("cannot make {}", parts.display()))?;
        }
        let version = said(Command::new(profile.folder().join("cdc-audit")).arg("--version"))?;
        let version = version.rsplit(' ').next().unwrap_or_default().to_owned();
        let time = git(&["log", "-1", "--format=%ct"])?;
        Ok(Release { profile, version, folder, parts, time })
    }

    fn parts(&self) -> Result<()> {
        let built = self.profile.folder().join("cdc-audit");
        let program = self.parts.join("bin/cdc-audit");
        run(Command::new("strip").arg("-o").args([&program, &built]))?;
        run(Command::new(&program).args(["man", "--to"]).arg(self.parts.join("man")))?;
        for (shell, name) in [("bash", "cdc-audit.bash"), ("fish", "cdc-audit.fish"), ("zsh", "_cdc-audit")] {
            let script = output(Command::new(&program).args(["completions", shell]))?;
            fs::write(self.parts.join("completions").join(name), script)?;
        }
        // All names come first, because a folder may list what is made in it meanwhile.
        let pages: Vec<_> = fs::read_dir(self.parts.join("man"))?.collect::<Result<_, _>>()?;
        for page in pages {
            compress(&page.path())?;
        }
        self.changelog()
    }

    /// In Debian's form, of which the package must have one.
    fn changelog(&self) -> Result<()> {
        let (version, date) = (&self.version, git(&["log", "-1", "--format=%cD"])?);
        let file = self.parts.join("changelog.Debian");
        let text = format!(
            "cdc-audit ({version}-1) unstable; urgency=medium\n\n  * Release {version}; CHANGELOG.md says what changed.\n\n \
             -- {}  {date}\n",
            maintainer()?
        );
        fs::write(&file, text)?;
        compress(&file)
    }

    fn deb(&self) -> Result<PathBuf> {
        let file = self.folder.join(format!("cdc-audit_{}-1_{}.deb", self.version, said(&mut architecture())?));
        let mut command = install::tool("deb")?;
        command.args(["--package", "cdc-audit", "--no-build", "--no-strip"]);
        if let Profile::Dev = self.profile {
            // A program that is not optimised is large, and to compress it well takes minutes.
            command.arg("--fast");
        }
        run(command.env("SOURCE_DATE_EPOCH", &self.time).arg("--output").arg(&file))?;
        Ok(file)
    }

    /// Every crate that the program is made of, in the form of CycloneDX, which scanners for known weaknesses read.
    fn sbom(&self) -> Result<PathBuf> {
        const NAME: &str = "cdc-audit-components";
        let manifest = root().join("crates/cdc-audit/Cargo.toml");
        let mut command = install::tool("cyclonedx")?;
        command.args(["--format", "json", "--spec-version", "1.5", "--override-filename", NAME]);
        command.arg("--manifest-path").arg(&manifest);
        let made = run(command.env("SOURCE_DATE_EPOCH", &self.time));
        // The tool writes a file beside each manifest of the workspace, of which one is wanted.
        let file = self.folder.join(format!("cdc-audit-{}.cdx.json", self.version));
        let wanted = manifest.with_file_name(format!("{NAME}.json"));
        let list = made.and_then(|()| fs::read_to_string(wanted).context("cargo-cyclonedx wrote no list"));
        for folder in members()? {
            let _ = fs::remove_file(folder.join(format!("{NAME}.json")));
        }
        // Where the sources lay is of no use to anybody else.
        fs::write(&file, list?.replace(&root().display().to_string(), ""))?;
        Ok(file)
    }

    /// For other distributions: the same files, in one folder.
    fn tarball(&self, sbom: &Path) -> Result<PathBuf> {
        let name = format!("cdc-audit-{}-{}-linux", self.version, std::env::consts::ARCH);
        let file = self.folder.join(format!("{name}.tar.gz"));
        let list = sbom.file_name().context("the list of components has a name")?;
        let below = format!("--transform=s,^,{name}/,");
        let mut command = Command::new("tar");
        command.args(["--create", "--gzip", "--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
        command.args([format!("--mtime=@{}", self.time), below]).arg("--file").arg(&file);
        command.arg("-C").arg(&self.parts).args(["bin", "man", "completions"]);
        command.arg("-C").arg(&self.folder).arg(list);
        command.arg("-C").arg(root());
        // Only what git knows: the passwords of a composition that was tried here lie in `deploy` too.
        let sources = git(&["ls-files", "--", "config.toml", "LICENSE", "CHANGELOG.md", "deploy", "docs", "examples"])?;
        run(command.args(sources.lines()))?;
        Ok(file)
    }

    fn sums(&self, files: &[&PathBuf]) -> Result<()> {
        let names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
        let sums = File::create(self.folder.join("SHA256SUMS"))?;
        run(Command::new("sha256sum").args(names).current_dir(&self.folder).stdout(sums))?;
        for file in files {
            println!("{:>6.1} MiB  {}", fs::metadata(file)?.len() as f64 / f64::from(1 << 20), file.display());
        }
        Ok(())
    }
}

/// Puts `FILE.gz` in place of a file, without its name and time.
fn compress(file: &Path) -> Result<()> {
    run(Command::new("gzip").args(["-9", "--no-name", "--force"]).arg(file))
}

/// The folders of our own packages.
fn members() -> Result<Vec<PathBuf>> {
    let folder = |package: &serde_json::Value| Some(Path::new(package["manifest_path"].as_str()?).parent()?.to_owned());
    Ok(packages()?.iter().filter_map(folder).collect())
}

fn maintainer() -> Result<String> {
    let packages = packages()?;
    let program = packages.iter().find(|package| package["name"] == "cdc-audit").context("no package cdc-audit")?;
    let maintainer = program["metadata"]["deb"]["maintainer"].as_str();
    maintainer.map(str::to_owned).context("[package.metadata.deb] names no maintainer")
}

fn packages() -> Result<Vec<serde_json::Value>> {
    let metadata = output(&mut cargo(&["metadata", "--format-version=1", "--no-deps", "--offline"]))?;
    match serde_json::from_slice::<serde_json::Value>(&metadata)?["packages"].take() {
        serde_json::Value::Array(packages) => Ok(packages),
        _ => bail!("cargo metadata names no packages"),
    }
}

fn architecture() -> Command {
    let mut command = Command::new("dpkg");
    command.arg("--print-architecture");
    command
}

fn git(arguments: &[&str]) -> Result<String> {
    said(Command::new("git").args(arguments).current_dir(root()))
}

/// What a command printed, without the line break at its end.
fn said(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8(output(command)?)?.trim_end().to_owned())
}
