func.func @f(%x: tensor<?x64xf32>) -> tensor<?x16xf32> {
  %a = "model.slice"(%x) {offset = "a"} : (tensor<?x64xf32>) -> tensor<?x16xf32>
  return %a : tensor<?x16xf32>
}