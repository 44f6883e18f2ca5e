//! How the client verbs find a server. The only file of this crate that names environment variables.

use std::path::PathBuf;

use clap::Args;

/// Where `banyan up` keeps its state, and where the client verbs look for its addresses and keys.
#[derive(Args, Clone, Debug)]
pub struct DataArgs {
    /// Data directory: embedded database, adapters, secrets, and the client file (`client.toml`).
    #[arg(long, global = true, value_name = "DIR", env = "BANYAN_DATA", default_value = ".banyan")]
    pub data: PathBuf,
}

/// Each value: flag, else environment, else `client.toml` in the data directory.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// The gateway's public address, such as http://127.0.0.1:7070.
    #[arg(long, global = true, value_name = "URL", env = "BANYAN_ENDPOINT")]
    pub endpoint: Option<String>,

    /// The gateway's admin address, such as http://127.0.0.1:7071.
    #[arg(long, global = true, value_name = "URL", env = "BANYAN_ADMIN_ENDPOINT")]
    pub admin_endpoint: Option<String>,

    /// API key (`bn_…`). For the admin verbs a tenant-admin key serves in place of the operator token.
    #[arg(long, global = true, value_name = "KEY", env = "BANYAN_KEY", hide_env_values = true)]
    pub key: Option<String>,

    /// Operator token, for the admin verbs.
    #[arg(long, global = true, value_name = "TOKEN", env = "BANYAN_OPERATOR_TOKEN", hide_env_values = true)]
    pub operator_token: Option<String>,

    #[command(flatten)]
    pub data: DataArgs,
}
