//! What programs do at their start that use sqlx: `sqlx-migrate FOLDER` runs the folder's migrations at `DATABASE_URL`.

use anyhow::{Context as _, Result};
use sqlx_core::migrate::Migrator;
use sqlx_postgres::PgPool;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("the folder of the migrations")?;
    let url = std::env::var("DATABASE_URL").context("DATABASE_URL")?;
    let pool = PgPool::connect(&url).await?;
    Migrator::new(std::path::Path::new(&folder)).await?.run(&pool).await?;
    pool.close().await;
    Ok(())
}
