//! Command-line arguments of `pointsman sim`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::config::{Role, SimConfig};
use super::profile::EngineProfile;

/// Simulate vLLM servers on local addresses.
#[derive(Debug, Clone, clap::Args)]
pub struct SimArgs {
    /// Address to listen on, unless --address is given.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub host: IpAddr,
    /// First port of each address. With 0 the system chooses every port.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Number of servers on each address, on consecutive ports from --port on.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    pub count: u16,
    /// Address to listen on, in place of --host; repeat the flag for several.
    #[arg(long)]
    pub address: Vec<IpAddr>,
    /// Print a line `NAME ADDRESS` on standard output for each server once all of them listen.
    #[arg(long)]
    pub print_addresses: bool,
    /// Beginning of the servers' names. A hyphen and a number from 0 follow.
    #[arg(long, default_value = "sim")]
    pub name_prefix: String,

    /// Served name of the model; repeat the flag for several. The first name labels the metrics.
    #[arg(long, default_value = "sim-model")]
    pub model: Vec<String>,
    /// LoRA adapter, as NAME or NAME=PATH. Repeat the flag or separate by commas for several.
    #[arg(long, value_delimiter = ',')]
    pub lora_modules: Vec<String>,
    /// Most LoRA adapters in one batch.
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    pub max_loras: usize,

    /// Most requests in one batch.
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    pub max_num_seqs: usize,
    /// Most requests that wait. Further requests get a 503.
    #[arg(long, default_value_t = 1000)]
    pub max_waiting: usize,
    /// Most tokens in one step of the engine.
    #[arg(long, default_value_t = 8192, value_parser = at_least_one)]
    pub max_num_batched_tokens: usize,
    /// Tokens in a KV-cache block.
    #[arg(long, default_value_t = 16, value_parser = at_least_one)]
    pub block_size: usize,
    /// Number of KV-cache blocks of each engine.
    #[arg(long, default_value_t = 16_384, value_parser = at_least_one)]
    pub num_gpu_blocks: usize,
    /// Prefill time of a prompt token that is not cached, in microseconds; may be a fraction.
    #[arg(long, default_value_t = 50.0, value_parser = duration_number)]
    pub prefill_us_per_token: f64,
    /// Time between tokens, in milliseconds; may be a fraction.
    #[arg(long, default_value_t = 10.0, value_parser = duration_number)]
    pub inter_token_ms: f64,
    /// Fixed part of the time to first token, in milliseconds; may be a fraction.
    #[arg(long, default_value_t = 5.0, value_parser = duration_number)]
    pub first_token_base_ms: f64,

    /// Engine whose measured sizes and step times the servers have: h100-70b, h100-70b-tp8, a100-70b, a100-70b-tp8 or
    /// demo. The flags of batch, steps, blocks and times then have no effect.
    #[arg(long, value_parser = profile)]
    pub engine: Option<&'static EngineProfile>,
    /// Role of the servers in disaggregated serving. Without this flag they have no KV connector.
    #[arg(long, value_enum)]
    pub role: Option<Role>,
    /// Fixed part of the time to fetch a processed prompt, in milliseconds; may be a fraction.
    #[arg(long, default_value_t = 2.0, value_parser = duration_number)]
    pub kv_transfer_base_ms: f64,
    /// Time to fetch a prompt token that is not cached, in microseconds; may be a fraction.
    #[arg(long, default_value_t = 5.0, value_parser = duration_number)]
    pub kv_transfer_us_per_token: f64,

    /// Number of API server processes to imitate. With 2 the metrics page is that of several processes, and a filtered
    /// page is empty.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub processes: u8,
    /// Number of engines behind each server.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub data_parallel_size: u8,
    /// Seed of the words of answers, and of the requests that an error rate hits.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Largest request body, in bytes.
    #[arg(long, default_value_t = 128 * 1024 * 1024)]
    pub max_body_bytes: usize,
}

impl SimArgs {
    /// The servers that the arguments ask for: settings and address of each.
    pub fn servers(&self) -> anyhow::Result<Vec<(SimConfig, SocketAddr)>> {
        let hosts = if self.address.is_empty() { std::slice::from_ref(&self.host) } else { &self.address };
        let mut servers = Vec::with_capacity(hosts.len() * usize::from(self.count));
        for host in hosts {
            for offset in 0..self.count {
                let port = match self.port {
                    0 => 0,
                    base => base.checked_add(offset).ok_or_else(|| {
                        anyhow::anyhow!("{} servers from port {base} on need ports above 65535", self.count)
                    })?,
                };
                let name = format!("{}-{}", self.name_prefix, servers.len());
                servers.push((self.config(name), SocketAddr::new(*host, port)));
            }
        }
        Ok(servers)
    }

    fn config(&self, name: String) -> SimConfig {
        let adapter = |module: &String| module.split('=').next().unwrap_or_default().to_owned();
        let config = SimConfig {
            name,
            models: self.model.clone(),
            adapters: self.lora_modules.iter().map(adapter).filter(|name| !name.is_empty()).collect(),
            max_loras: self.max_loras,
            max_num_seqs: self.max_num_seqs,
            max_waiting: self.max_waiting,
            max_num_batched_tokens: self.max_num_batched_tokens,
            block_size: self.block_size,
            num_gpu_blocks: self.num_gpu_blocks,
            prefill_per_token: Duration::from_secs_f64(self.prefill_us_per_token / 1e6),
            inter_token: Duration::from_secs_f64(self.inter_token_ms / 1e3),
            profile: self.engine,
            first_token_base: Duration::from_secs_f64(self.first_token_base_ms / 1e3),
            role: self.role,
            transfer_base: Duration::from_secs_f64(self.kv_transfer_base_ms / 1e3),
            transfer_per_token: Duration::from_secs_f64(self.kv_transfer_us_per_token / 1e6),
            processes: usize::from(self.processes),
            engines: usize::from(self.data_parallel_size),
            seed: self.seed,
            max_body_bytes: self.max_body_bytes,
        };
        match self.engine {
            None => config,
            Some(profile) => SimConfig {
                max_num_seqs: profile.max_running,
                max_num_batched_tokens: profile.max_step_tokens,
                block_size: profile.block_size,
                num_gpu_blocks: profile.blocks,
                first_token_base: Duration::ZERO,
                ..config
            },
        }
    }
}

fn profile(name: &str) -> Result<&'static EngineProfile, String> {
    EngineProfile::named(name).ok_or_else(|| {
        let names: Vec<&str> = EngineProfile::ALL.iter().map(|profile| profile.name).collect();
        format!("there is no such engine; there are {}", names.join(", "))
    })
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(error.to_string()),
    }
}

/// A length of time as a number: not negative, and at most an hour in milliseconds.
fn duration_number(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=3_600_000.0).contains(&number) {
        Ok(number)
    } else {
        Err("must be between 0 and 3600000".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        sim: SimArgs,
    }

    fn parse(args: &str) -> Result<SimArgs, String> {
        let args = std::iter::once("sim").chain(args.split_whitespace());
        Command::try_parse_from(args).map(|command| command.sim).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_one_server_with_the_default_settings() {
        let servers = parse("").unwrap().servers().unwrap();
        assert_eq!(servers, [(SimConfig::default(), "127.0.0.1:8000".parse().unwrap())]);
    }

    #[test]
    fn count_and_address_multiply() {
        let args = parse("--port 9000 --count 2 --address 127.0.0.2 --address 127.0.0.3").unwrap();
        let servers: Vec<String> =
            args.servers().unwrap().iter().map(|(config, addr)| format!("{} {addr}", config.name)).collect();
        let expected =
            ["sim-0 127.0.0.2:9000", "sim-1 127.0.0.2:9001", "sim-2 127.0.0.3:9000", "sim-3 127.0.0.3:9001"];
        assert_eq!(servers, expected);
    }

    #[test]
    fn port_zero_stays_zero_for_all() {
        let servers = parse("--port 0 --count 3").unwrap().servers().unwrap();
        assert!(servers.iter().all(|(_, addr)| addr.port() == 0));
    }

    #[test]
    fn ports_past_the_last_are_an_error() {
        assert!(parse("--port 65535 --count 2").unwrap().servers().is_err());
    }

    #[test]
    fn lora_modules_may_carry_paths() {
        let args = parse("--lora-modules a=/x,b --lora-modules c --model m --model n").unwrap();
        let (config, _) = args.servers().unwrap().remove(0);
        assert_eq!(config.adapters, ["a", "b", "c"]);
        assert_eq!(config.models, ["m", "n"]);
    }

    #[test]
    fn a_measured_engine_brings_its_sizes() {
        let (config, _) = parse("--engine h100-70b").unwrap().servers().unwrap().remove(0);
        assert_eq!((config.num_gpu_blocks, config.max_num_seqs), (28_200, 256));
        assert!(parse("--engine h100").unwrap_err().contains("h100-70b-tp8"));
    }

    #[test]
    fn a_role_goes_to_every_server() {
        let servers =
            parse("--port 0 --count 2 --role prefill --kv-transfer-base-ms 1.5").unwrap().servers().unwrap();
        for (config, _) in servers {
            assert_eq!(config.role, Some(Role::Prefill));
            assert_eq!(config.transfer_base, Duration::from_micros(1500));
        }
    }

    #[test]
    fn senseless_numbers_are_refused() {
        for args in [
            "--block-size 0",
            "--processes 3",
            "--count 0",
            "--inter-token-ms -1",
            "--inter-token-ms nan",
            "--role x",
        ] {
            assert!(parse(args).is_err(), "{args}");
        }
    }
}
