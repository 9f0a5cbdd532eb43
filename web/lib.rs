//! The dashboard's built files, embedded into the binary from `dist/`.

/// The files of `dist/` by path, `index.html` among them.
#[derive(rust_embed::RustEmbed)]
#[folder = "dist/"]
pub struct Dist;
