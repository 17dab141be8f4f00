//! Pictures: the roofline, and runs over time.

use anyhow::{Result, anyhow};
use concertina::Ceilings;
use plotters::prelude::*;

use super::history::Run;
use super::rows::Row;

const SIZE: (u32, u32) = (1280, 720);
/// Width of the chart; the list beside it takes the rest.
const CHART: u32 = 800;
/// Kernels that are shown of each pass.
const SHOWN: usize = 11;
const COLOURS: [RGBColor; 4] =
    [RGBColor(31, 111, 180), RGBColor(214, 96, 20), RGBColor(44, 140, 70), RGBColor(130, 80, 160)];
const GREY: RGBColor = RGBColor(90, 90, 90);
const PALE: RGBColor = RGBColor(225, 225, 225);

/// Kernels by operations a byte and operations a second, under the adapter's ceilings. Numbers refer to the list.
pub fn roofline(adapter: &str, ceilings: &Ceilings, passes: &[(&str, Vec<Row>)]) -> Result<String> {
    let mut svg = String::new();
    draw_roofline(&mut svg, adapter, ceilings, passes).map_err(|e| anyhow!("the roofline cannot be drawn: {e}"))?;
    Ok(svg)
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw_roofline(svg: &mut String, adapter: &str, c: &Ceilings, passes: &[(&str, Vec<Row>)]) -> Drawn {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(CHART);
    let points = points(passes);
    let (x, y) = bounds(c, &points);
    let mut chart = ChartBuilder::on(&left)
        .caption(adapter, ("sans-serif", 18))
        .margin(16)
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d((x.0..x.1).log_scale(), (y.0..y.1).log_scale())?;
    chart
        .configure_mesh()
        .bold_line_style(PALE)
        .light_line_style(TRANSPARENT)
        .x_desc("operations a byte")
        .y_desc("GFLOP/s")
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .x_label_formatter(&|v| number(*v))
        .y_label_formatter(&|v| number(*v))
        .draw()?;
    // Memory's ceilings rise with the operations a byte, arithmetic's are level.
    let top = c.f16_gflop_s.unwrap_or(0.0).max(c.f32_gflop_s).max(c.int8_gop_s);
    for (gb_s, name) in [(c.copy_gb_s, "copy kernel"), (c.buffer_copy_gb_s, "buffer copy")] {
        let ends = [(x.0.max(y.0 / gb_s)), (top / gb_s).min(x.1)].map(|x| (x, x * gb_s));
        chart.draw_series(LineSeries::new(ends, GREY.stroke_width(2)))?;
        // Below the line, right of its foot.
        let style = ("sans-serif", 13).into_font().color(&GREY);
        let label = EmptyElement::at(ends[0]) + Text::new(format!("{name} {gb_s:.1} GB/s"), (30, 3), style);
        chart.draw_series([label])?;
    }
    let levels = [(Some(c.f32_gflop_s), "f32"), (c.f16_gflop_s, "f16"), (Some(c.int8_gop_s), "int8 dot")];
    for (i, (rate, name)) in levels.into_iter().filter_map(|(rate, name)| Some((rate?, name))).enumerate() {
        let from = (rate / c.gb_s()).clamp(x.0, x.1);
        chart.draw_series(LineSeries::new([(from, rate), (x.1, rate)], GREY.stroke_width(2)))?;
        let style = ("sans-serif", 13).into_font().color(&GREY);
        let label =
            EmptyElement::at((x.1, rate)) + Text::new(format!("{name} {rate:.0}"), (-90 - 100 * i as i32, -17), style);
        chart.draw_series([label])?;
    }
    for (i, point) in points.iter().enumerate() {
        let colour = COLOURS[point.pass % COLOURS.len()];
        let radius = 4 + (14.0 * point.row.share.sqrt()) as i32;
        // In turn to the right and to the left: neighbours in the list are often neighbours in the picture.
        let beside = if i % 2 == 0 { (radius + 1, -13) } else { (-radius - 16, -1) };
        let mark = EmptyElement::at(point.at)
            + Circle::new((0, 0), radius, colour.mix(0.35).filled())
            + Circle::new((0, 0), radius, colour.stroke_width(1))
            + Text::new(format!("{}", i + 1), beside, ("sans-serif", 13).into_font().color(&colour));
        chart.draw_series([mark])?;
    }
    list(&right, passes, &points)?;
    root.present()?;
    Ok(())
}

struct Point<'a> {
    pass: usize,
    row: &'a Row,
    at: (f64, f64),
}

fn points<'a>(passes: &'a [(&str, Vec<Row>)]) -> Vec<Point<'a>> {
    let of_pass = |(pass, (_, rows)): (usize, &'a (&str, Vec<Row>))| {
        let points = rows.iter().filter_map(move |row| {
            let (bytes, flops) = (row.bytes.filter(|b| *b > 0.0)?, row.flops.filter(|f| *f > 0.0)?);
            Some(Point { pass, row, at: (flops / bytes, flops / row.ns) })
        });
        points.take(SHOWN)
    };
    passes.iter().enumerate().flat_map(of_pass).collect()
}

fn bounds(c: &Ceilings, points: &[Point<'_>]) -> ((f64, f64), (f64, f64)) {
    let top = c.f16_gflop_s.unwrap_or(0.0).max(c.f32_gflop_s).max(c.int8_gop_s);
    let fold = |pick: fn(&Point<'_>) -> f64, first: (f64, f64)| {
        points.iter().map(pick).fold(first, |(a, b), v| (a.min(v), b.max(v)))
    };
    let ridge = (c.f32_gflop_s / c.gb_s().max(1e-3)).max(1e-3);
    let x = fold(|p| p.at.0, (ridge / 4.0, ridge * 4.0));
    let y = fold(|p| p.at.1, (top / 100.0, top));
    ((x.0 / 2.0, x.1 * 2.0), (y.0 / 2.0, y.1 * 3.0))
}

fn list(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    passes: &[(&str, Vec<Row>)],
    points: &[Point<'_>],
) -> Drawn {
    let mut y = 20;
    for (pass, (name, _)) in passes.iter().enumerate() {
        let colour = COLOURS[pass % COLOURS.len()];
        area.draw(&Text::new(*name, (0, y), ("sans-serif", 16).into_font().color(&colour)))?;
        y += 26;
        for (i, point) in points.iter().enumerate().filter(|(_, point)| point.pass == pass) {
            let style = ("sans-serif", 13).into_font().color(&BLACK);
            let number = ("sans-serif", 13).into_font().color(&colour);
            area.draw(&Text::new(format!("{}", i + 1), (0, y), number))?;
            let kernel = format!("{} {}", point.row.kernel, point.row.shape);
            area.draw(&Text::new(kernel, (26, y), style.clone()))?;
            area.draw(&Text::new(format!("{:.0} %", 100.0 * point.row.share), (420, y), style))?;
            y += 21;
        }
        y += 18;
    }
    area.draw(&Text::new(
        "Area of a mark and percent: share of the pass.",
        (0, y),
        ("sans-serif", 13).into_font().color(&GREY),
    ))?;
    Ok(())
}

fn number(v: f64) -> String {
    if v >= 1.0 { format!("{v:.0}") } else { format!("{v}") }
}

/// Milliseconds of each kind of pass, run by run.
pub fn history(runs: &[Run]) -> Result<String> {
    let mut svg = String::new();
    draw_history(&mut svg, runs).map_err(|e| anyhow!("the history cannot be drawn: {e}"))?;
    Ok(svg)
}

fn draw_history(svg: &mut String, runs: &[Run]) -> Drawn {
    let root = SVGBackend::with_string(svg, (960, 540)).into_drawing_area();
    root.fill(&WHITE)?;
    let Some(last) = runs.last() else { return Ok(()) };
    let (least, most) = runs
        .iter()
        .flat_map(|run| &run.ms)
        .fold((f64::INFINITY, 1e-3), |(a, b): (f64, f64), ms| (a.min(*ms), b.max(*ms)));
    let end = (runs.len() as f64).max(2.0);
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("{} runs on {}", runs.len(), last.adapter), ("sans-serif", 18))
        .margin(16)
        .x_label_area_size(46)
        .y_label_area_size(64)
        .build_cartesian_2d(0.5..end + 0.5, (least.clamp(1e-3, most) / 2.0..most * 2.0).log_scale())?;
    chart
        .configure_mesh()
        .bold_line_style(PALE)
        .light_line_style(TRANSPARENT)
        .x_desc("run")
        .y_desc("ms of a pass")
        .x_labels(runs.len().clamp(2, 20))
        .x_label_formatter(&|v| format!("{v:.0}"))
        .y_label_formatter(&|v| number(*v))
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .draw()?;
    for (i, name) in last.names.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let points: Vec<(f64, f64)> = runs.iter().enumerate().map(|(at, run)| (at as f64 + 1.0, run.ms[i])).collect();
        let label = format!("{name}: {:.1} ms", last.ms[i]);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|at| Circle::new(*at, 4, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::MiddleLeft)
        .background_style(WHITE.mix(0.9))
        .border_style(PALE)
        .label_font(("sans-serif", 14))
        .draw()?;
    root.present()?;
    Ok(())
}
