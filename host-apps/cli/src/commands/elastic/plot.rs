//! Pictures of levels and operating points.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::cap::Point;
use super::show::Row;

const SIZE: (u32, u32) = (960, 540);
const OURS: RGBColor = RGBColor(214, 96, 20);
const OTHERS: RGBColor = RGBColor(31, 111, 180);
const PALE: RGBColor = RGBColor(225, 225, 225);

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Times and, where it was measured, perplexity by level, each as a share of the whole model's.
pub fn levels(adapter: &str, rows: &[Row]) -> Result<String> {
    let mut svg = String::new();
    draw_levels(&mut svg, adapter, rows).map_err(|e| anyhow!("the levels cannot be drawn: {e}"))?;
    Ok(svg)
}

fn draw_levels(svg: &mut String, adapter: &str, rows: &[Row]) -> Drawn {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let Some(whole) = rows.last() else { return Ok(()) };
    type Of = fn(&Row) -> Option<f64>;
    let lines: [(&str, RGBColor, Of); 4] = [
        ("TTFT", OTHERS, |row| Some(row.ttft_ms)),
        ("TPOT", RGBColor(90, 160, 210), |row| Some(row.tpot_ms)),
        ("perplexity", OURS, |row| row.ppl),
        ("perplexity without adapters", RGBColor(235, 170, 120), |row| row.ppl_without_adapters),
    ];
    let share = |of: Of, row: &Row| Some(of(row)? / of(whole)?);
    let most = lines.iter().flat_map(|(_, _, of)| rows.iter().filter_map(|row| share(*of, row))).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("Levels, as a share of the whole model ({adapter})"), ("sans-serif", 16))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(15.0..102.0, (0.2..most * 1.2).log_scale())?;
    chart.configure_mesh().bold_line_style(PALE).light_line_style(TRANSPARENT).x_desc("level, percent").draw()?;
    for (name, colour, of) in lines {
        let points: Vec<(f64, f64)> =
            rows.iter().filter_map(|row| Some((f64::from(row.level), share(of, row)?))).collect();
        if points.is_empty() {
            continue;
        }
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().border_style(PALE).background_style(WHITE).draw()?;
    root.present()?;
    Ok(())
}

/// Accuracy by time to the first token; the size of a point is the context that it keeps.
pub fn cap(adapter: &str, points: &[Point]) -> Result<String> {
    let mut svg = String::new();
    draw_cap(&mut svg, adapter, points).map_err(|e| anyhow!("the points cannot be drawn: {e}"))?;
    Ok(svg)
}

fn draw_cap(svg: &mut String, adapter: &str, points: &[Point]) -> Drawn {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let slowest = points.iter().map(|p| p.ttft_ms).fold(1.0, f64::max);
    let (low, high) = points.iter().fold((1.0f64, 0.0f64), |(l, h), p| (l.min(p.accuracy), h.max(p.accuracy)));
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("Context, accuracy, performance ({adapter}); filled: the front"), ("sans-serif", 16))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..slowest * 1.1, (low - 0.03).max(0.0)..(high + 0.03).min(1.0))?;
    chart
        .configure_mesh()
        .bold_line_style(PALE)
        .light_line_style(TRANSPARENT)
        .x_desc("milliseconds to the first token; labels: prompt level / model level; size: context kept")
        .y_desc("share of right answers")
        .draw()?;
    for point in points {
        let (at, size) = ((point.ttft_ms, point.accuracy), 3 + (8.0 * point.kept) as i32);
        let style = if point.front { OURS.filled() } else { OTHERS.stroke_width(1) };
        chart.draw_series([Circle::new(at, size, style)])?;
        let label = format!("{}/{}", point.prompt_level, point.level);
        let font = ("sans-serif", 11).into_font().color(&BLACK);
        chart.draw_series([EmptyElement::at(at) + Text::new(label, (size + 2, -6), font)])?;
    }
    root.present()?;
    Ok(())
}
