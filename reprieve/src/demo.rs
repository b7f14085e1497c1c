//! `reprieve demo`: soon.

use crate::args::Demo;

pub(crate) fn demo(_demo: &Demo) -> anyhow::Result<u8> {
    anyhow::bail!("not yet")
}
