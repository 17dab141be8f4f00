//! Switch latency by policy, on a scale of powers of ten.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

const SIZE: (u32, u32) = (960, 540);
const OURS: RGBColor = RGBColor(214, 96, 20);
const OTHERS: RGBColor = RGBColor(31, 111, 180);
const PALE: RGBColor = RGBColor(225, 225, 225);

/// A policy's bar: its mean, and a mark at p95.
pub struct Bar<'a> {
    pub name: &'a str,
    pub mean: f64,
    pub p95: f64,
}

/// The picture as SVG.
pub fn latencies(title: &str, adapter: &str, bars: &[Bar<'_>]) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, title, adapter, bars).map_err(|e| anyhow!("the latencies cannot be drawn: {e}"))?;
    Ok(svg)
}

fn draw(svg: &mut String, title: &str, adapter: &str, bars: &[Bar<'_>]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let values = || bars.iter().flat_map(|bar| [bar.mean, bar.p95]).filter(|ms| *ms > 0.0);
    let low = 10f64.powf(values().fold(1.0, f64::min).log10().floor());
    let high = 10f64.powf(values().fold(10.0, f64::max).log10().ceil());
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("{title} ({adapter})"), ("sans-serif", 16))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(150)
        .build_cartesian_2d((low..high).log_scale(), 0.0..bars.len() as f64)?;
    let name = |y: &f64| bars.get((bars.len() as f64 - y) as usize).map_or(String::new(), |bar| bar.name.to_owned());
    chart
        .configure_mesh()
        .disable_y_mesh()
        .bold_line_style(PALE)
        .light_line_style(TRANSPARENT)
        .x_desc("milliseconds to ready-to-prefill: mean (bar), p95 (dot)")
        .y_labels(0)
        .y_label_formatter(&name)
        .label_style(("sans-serif", 13))
        .draw()?;
    for (i, bar) in bars.iter().enumerate() {
        let y = (bars.len() - i) as f64;
        let colour = if bar.name.starts_with("ours") { OURS } else { OTHERS };
        let alpha = if bar.name == "ours" { 1.0 } else { 0.6 };
        let corners = [(low, y - 0.85), (bar.mean.max(low), y - 0.15)];
        chart.draw_series([Rectangle::new(corners, colour.mix(alpha).filled())])?;
        chart.draw_series([Circle::new((bar.p95.max(low), y - 0.5), 4, BLACK.filled())])?;
        let style = ("sans-serif", 13).into_font().color(&BLACK);
        chart.draw_series([
            EmptyElement::at((low, y - 0.5)) + Text::new(bar.name.to_owned(), (-145, -7), style.clone())
        ])?;
        let label =
            EmptyElement::at((bar.mean.max(low), y - 0.5)) + Text::new(format!("{:.2}", bar.mean), (8, -7), style);
        chart.draw_series([label])?;
    }
    root.present()?;
    Ok(())
}
