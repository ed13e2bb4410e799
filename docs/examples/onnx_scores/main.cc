// Embeddings and scores of jets in a text file, from a model that `jetclr export --to onnx` wrote; every flavor.
//
//   onnx_scores MODEL.onnx JETS.csv > scores.csv
//
// The first line of JETS.csv names its columns: jet, then those of the model in its order (pt in GeV, eta, phi, ...).
// Every other line is a constituent; those of a jet stand together. One jet at a time on one thread, as in a trigger.

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>

using Constituent = std::vector<float>;  // pt, eta, phi, ...
using Shape = std::vector<std::int64_t>;

struct Jet {
  std::string name;
  std::vector<Constituent> constituents;
};

std::vector<std::string> fields(const std::string& line) {
  std::vector<std::string> found;
  std::stringstream stream(line);
  for (std::string field; std::getline(stream, field, ',');) {
    field.erase(0, field.find_first_not_of(" \t\r"));
    field.erase(field.find_last_not_of(" \t\r") + 1);
    found.push_back(field);
  }
  return found;
}

struct Table {
  std::vector<std::string> columns;  // without "jet"
  std::vector<Jet> jets;
};

Table read(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot open " + path);
  Table table;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const auto found = fields(line);
    const auto where = path + ", line " + std::to_string(number) + ": ";
    if (number == 1) {
      if (found.size() < 4 || found[0] != "jet" || found[1] != "pt" || found[2] != "eta" || found[3] != "phi")
        throw std::runtime_error(where + "it must name the columns: jet,pt,eta,phi and what else the model takes");
      table.columns.assign(found.begin() + 1, found.end());
      continue;
    }
    if (found.empty()) continue;
    if (found.size() != table.columns.size() + 1)
      throw std::runtime_error(where + "there are " + std::to_string(found.size()) + " columns instead of " +
                               std::to_string(table.columns.size() + 1));
    Constituent constituent;
    for (std::size_t i = 1; i < found.size(); ++i) {
      try {
        std::size_t read = 0;
        constituent.push_back(std::stof(found[i], &read));
        if (read != found[i].size()) throw std::invalid_argument("text after the number");
      } catch (const std::logic_error&) {
        throw std::runtime_error(where + "'" + found[i] + "' is not a number");
      }
    }
    if (table.jets.empty() || table.jets.back().name != found[0]) table.jets.push_back({found[0], {}});
    table.jets.back().constituents.push_back(std::move(constituent));
  }
  return table;
}

class Model {
 public:
  explicit Model(const std::string& path) : session_(environment_, path.c_str(), options()) {
    Ort::AllocatorWithDefaultOptions allocator;
    for (std::size_t i = 0; i < session_.GetInputCount(); ++i) {
      inputs_.emplace_back(session_.GetInputNameAllocated(i, allocator).get());
      shapes_.push_back(session_.GetInputTypeInfo(i).GetTensorTypeAndShapeInfo().GetShape());
    }
    for (std::size_t i = 0; i < session_.GetOutputCount(); ++i)
      outputs_.emplace_back(session_.GetOutputNameAllocated(i, allocator).get());
    const auto told = session_.GetModelMetadata();
    const auto constituents = told.LookupCustomMetadataMapAllocated("constituents", allocator);
    const auto described = told.LookupCustomMetadataMapAllocated("inputs", allocator);
    if (!constituents || !described) throw std::runtime_error(path + " does not describe its inputs as jetclr does");
    most_ = std::stoul(constituents.get());
    described_ = described.get();
  }

  const std::vector<std::string>& outputs() const { return outputs_; }

  // The outputs of one jet, one after the other.
  std::vector<std::vector<float>> operator()(const Jet& jet, const std::vector<std::string>& columns) {
    auto hardest = jet.constituents;
    std::stable_sort(hardest.begin(), hardest.end(), [](const auto& a, const auto& b) { return a[0] > b[0]; });
    hardest.resize(std::min(hardest.size(), most_));
    const auto n = static_cast<std::int64_t>(hardest.size()), f = static_cast<std::int64_t>(columns.size());

    std::vector<std::vector<float>> values(inputs_.size());
    std::vector<Shape> shapes;
    for (std::size_t i = 0; i < inputs_.size(); ++i) {
      const auto& name = inputs_[i];
      if (name == "mask" || name == "pf_mask") {  // nothing is padded here
        values[i].assign(n, 1.0f);
        shapes.push_back(name == "mask" ? Shape{1, n} : Shape{1, 1, n});
      } else if (name == "pf_features") {  // [1, F, N]
        require_columns(columns, shapes_[i][1]);
        for (std::int64_t c = 0; c < f; ++c)
          for (const auto& one : hardest) values[i].push_back(one[c]);
        shapes.push_back({1, f, n});
      } else if (name == "track_features") {  // [N, F]
        require_columns(columns, shapes_[i][1]);
        for (const auto& one : hardest) values[i].insert(values[i].end(), one.begin(), one.end());
        shapes.push_back({n, f});
      } else {  // a column, [1, N]
        const auto at = std::find(columns.begin(), columns.end(), name);
        if (at == columns.end()) throw std::runtime_error("the model takes '" + name + "', which the jets do not have");
        for (const auto& one : hardest) values[i].push_back(one[at - columns.begin()]);
        shapes.push_back({1, n});
      }
    }
    return run(values, shapes);
  }

 private:
  static Ort::SessionOptions options() {
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
    return options;
  }

  // In one table columns are known by their place: these must be those that the model's JSON names, in its order.
  void require_columns(const std::vector<std::string>& columns, std::int64_t count) const {
    std::size_t at = 0;
    for (const auto& name : columns) {
      if (at != std::string::npos) at = described_.find("\"name\": \"" + name + "\"", at);
    }
    if (at == std::string::npos || static_cast<std::int64_t>(columns.size()) != count)
      throw std::runtime_error("the model takes " + std::to_string(count) +
                               " columns beside 'jet'; model_card.md has their names and order");
  }

  std::vector<std::vector<float>> run(std::vector<std::vector<float>>& values, const std::vector<Shape>& shapes) {
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::vector<Ort::Value> tensors;
    std::vector<const char*> inputs, outputs;
    for (std::size_t i = 0; i < values.size(); ++i) {
      tensors.push_back(Ort::Value::CreateTensor<float>(memory, values[i].data(), values[i].size(), shapes[i].data(),
                                                        shapes[i].size()));
      inputs.push_back(inputs_[i].c_str());
    }
    for (const auto& name : outputs_) outputs.push_back(name.c_str());
    const auto found = session_.Run(Ort::RunOptions{nullptr}, inputs.data(), tensors.data(), tensors.size(),
                                    outputs.data(), outputs.size());
    std::vector<std::vector<float>> numbers;
    for (const auto& one : found) {
      const float* first = one.GetTensorData<float>();
      numbers.emplace_back(first, first + one.GetTensorTypeAndShapeInfo().GetElementCount());
    }
    return numbers;
  }

  Ort::Env environment_{ORT_LOGGING_LEVEL_WARNING, "onnx_scores"};
  Ort::Session session_;
  std::vector<std::string> inputs_, outputs_;
  std::vector<Shape> shapes_;  // of the inputs
  std::string described_;      // the same as JSON, with the names of columns
  std::size_t most_ = 0;       // constituents that the encoder was trained on; more would be new to it
};

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: onnx_scores MODEL.onnx JETS.csv\n";
    return 2;
  }
  try {
    const auto table = read(argv[2]);
    Model model(argv[1]);
    std::cout.precision(std::numeric_limits<float>::max_digits10);
    bool first = true;
    for (const auto& jet : table.jets) {
      const auto numbers = model(jet, table.columns);
      if (first) {
        std::cout << "jet";
        for (std::size_t i = 0; i < numbers.size(); ++i)
          for (std::size_t k = 0; k < numbers[i].size(); ++k)
            std::cout << ',' << model.outputs()[i] << (numbers[i].size() > 1 ? "_" + std::to_string(k) : "");
        std::cout << '\n';
        first = false;
      }
      std::cout << jet.name;
      for (const auto& output : numbers)
        for (const float x : output) std::cout << ',' << x;
      std::cout << '\n';
    }
  } catch (const std::exception& error) {  // Ort::Exception is one
    std::cerr << "onnx_scores: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
