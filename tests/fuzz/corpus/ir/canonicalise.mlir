
func.func @f(%x: tensor<?x64xf32>, %r: tensor<?x16xf32>) -> tensor<?x16xf32> {
  %a = "model.slice"(%x) {offset = 16 : i64} : (tensor<?x64xf32>) -> tensor<?x32xf32>
  %b = "model.slice"(%a) {offset = 8 : i64} : (tensor<?x32xf32>) -> tensor<?x16xf32>
  %c = "model.slice"(%b) {offset = 0 : i64} : (tensor<?x16xf32>) -> tensor<?x16xf32>
  %d = "model.add"(%c, %r) : (tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x16xf32>
  return %d : tensor<?x16xf32>
}

func.func @collectives(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %a = "model.all_reduce"(%x) {group = 1 : i64} : (tensor<?x64xf32>) -> tensor<?x64xf32>
  %b = "model.all_reduce"(%a) {group = 8 : i64} : (tensor<?x64xf32>) -> tensor<?x64xf32>
  return %b : tensor<?x64xf32>
}
