//! How much of the model runs.

use clap::Args;

/// Level of the sub-model.
#[derive(Debug, Clone, Args)]
pub struct LevelArg {
    /// Run the sub-model that keeps so many percent of what can be cut of the layers. An elastic model
    /// (`concertina elasticize`) runs the level of its table at or below, with its recovery adapters
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub level: u32,
}

/// Level of a measurement.
#[derive(Debug, Clone, Args)]
pub struct MeasuredLevel {
    #[command(flatten)]
    pub of: LevelArg,
    /// Leave recovery adapters out: to see what they give back
    #[arg(long)]
    pub no_adapters: bool,
}

impl MeasuredLevel {
    /// Set an engine up for it; the level that runs.
    pub fn apply(&self, engine: &mut concertina::Engine) -> concertina::Result<u32> {
        if self.no_adapters {
            engine.drop_adapters()?;
        }
        engine.level_run(self.of.level)
    }
}
